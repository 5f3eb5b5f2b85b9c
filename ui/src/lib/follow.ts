import type { View } from "./protocol";

/** The source of views: the desktop, or a test. */
export type Source = {
  /** Calls back with each new view; resolves to a function that stops it. */
  listen: (onView: (view: View) => void) => Promise<() => void>;
  /** The current view. */
  snapshot: () => Promise<View>;
};

/**
 * Follows the source until the returned function is called.
 *
 * Listens before it takes the snapshot, so that no change is missed; drops the snapshot if a newer view has arrived.
 */
export function followViews(source: Source, onView: (view: View) => void): () => void {
  let stopped = false;
  let heard = false;
  let unlisten: (() => void) | undefined;

  async function start() {
    unlisten = await source.listen((view) => {
      heard = true;
      if (!stopped) onView(view);
    });
    if (stopped) return unlisten();
    const first = await source.snapshot();
    if (!stopped && !heard) onView(first);
  }

  start().catch((reason: unknown) => console.error("the desktop does not answer", reason));
  return () => {
    stopped = true;
    unlisten?.();
  };
}
