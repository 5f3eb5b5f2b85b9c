import { untrack } from "svelte";

import { ticker } from "./clock";
import { followViews, type Source } from "./follow";
import { UNKNOWN } from "./protocol";

/**
 * The latest view, and a clock while a job runs. Must be called during component setup, and ends with the component.
 */
export function liveView(source: Source) {
  let view = $state.raw(UNKNOWN);
  let now = $state(Date.now());

  const busy = () => view.link.kind === "live" && view.link.status.jobs.length > 0;

  $effect(() =>
    untrack(() => {
      const hand = ticker(busy, () => (now = Date.now()));
      const unfollow = followViews(source, (next) => {
        view = next;
        hand.update();
      });
      return () => {
        unfollow();
        hand.stop();
      };
    }),
  );

  return {
    get view() {
      return view;
    },
    get now() {
      return now;
    },
  };
}
