/**
 * Ticks once a second while `wanted` returns true and the page is visible. Returns a function to call when `wanted` may
 * have changed, and one that stops the ticks.
 */
export function ticker(wanted: () => boolean, tick: () => void) {
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
