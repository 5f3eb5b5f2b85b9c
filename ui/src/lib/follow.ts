import type { View } from "./protocol";

/** Where views come from: the desktop, or a test. */
export type Source = {
  /** Calls back with each new view; resolves to what ends it. */
  listen: (onView: (view: View) => void) => Promise<() => void>;
  /** The view of this moment. */
  snapshot: () => Promise<View>;
};

/**
 * Follows the desktop until the returned function is called.
 *
 * It listens first and asks second, so that no change falls between; an answer that a newer
 * view has overtaken is dropped.
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
