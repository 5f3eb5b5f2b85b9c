import type { Source } from "./follow";
import { UNKNOWN, type Status, type View } from "./protocol";

/** Opens an event stream; returns a function that closes it. */
export type Open = (onEvent: (data: string) => void, onBroken: () => void) => () => void;

/** Minimum delay before a reconnect, in milliseconds; jitter adds up to the same again. */
const AGAIN = 2000;

/**
 * The agent that served this page, for a browser without the desktop app. A broken stream is reopened forever.
 * Meanwhile the state is unknown, but an overlay that its owner hid stays hidden.
 */
export function browserSource(open: Open, chance = Math.random): Source {
  return {
    listen: async (onView) => {
      let close = () => {};
      let isHidden = false;
      let timer: ReturnType<typeof setTimeout> | undefined;

      function follow() {
        timer = undefined;
        close = open(
          (data) => {
            const view = read(data);
            if (!view) return;
            isHidden = view.link.kind === "live" && !view.link.status.overlay_visible;
            onView(view);
          },
          // The browser reconnects by itself after some errors, and not after others.
          () => {
            close();
            if (!isHidden) onView(UNKNOWN);
            timer ??= setTimeout(follow, AGAIN * (1 + chance()));
          },
        );
      }

      follow();
      return () => {
        close();
        clearTimeout(timer);
      };
    },
    snapshot: async () => UNKNOWN,
  };
}

function read(data: string): View | undefined {
  try {
    const status = JSON.parse(data) as Partial<Status> | null;
    if (typeof status?.status !== "string" || !Array.isArray(status.jobs)) return undefined;
    return { link: { kind: "live", status: status as Status }, autostart: false };
  } catch {
    return undefined;
  }
}
