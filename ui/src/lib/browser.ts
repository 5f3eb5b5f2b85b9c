import type { Source } from "./follow";
import { UNKNOWN, type Status, type View } from "./protocol";

/** Opens a stream of events; returns what closes it. */
export type Open = (onEvent: (data: string) => void, onBroken: () => void) => () => void;

/** Between two tries, in milliseconds: as long at least, and up to twice as long. */
const AGAIN = 2000;

/**
 * The agent that served this page, for a browser without a desktop around it. A stream that
 * breaks is opened anew for ever; meanwhile nothing is known, but for an overlay that its owner hid:
 * that stays hidden.
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
          // The browser tries again by itself after some errors and never after others.
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
