/**
 * Ticks once a second while `wanted` says so and the page can be seen; silent otherwise.
 * Returns what to call when `wanted` may have changed, and what ends it.
 */
export function secondHand(wanted: () => boolean, tick: () => void) {
  let timer: ReturnType<typeof setInterval> | undefined;

  function update() {
    const run = wanted() && !document.hidden;
    if (run && timer === undefined) {
      tick();
      timer = setInterval(tick, 1000);
    } else if (!run && timer !== undefined) {
      clearInterval(timer);
      timer = undefined;
    }
  }

  document.addEventListener("visibilitychange", update);
  return {
    update,
    stop() {
      document.removeEventListener("visibilitychange", update);
      clearInterval(timer);
      timer = undefined;
    },
  };
}
