import { onDestroy } from "svelte";

/** Time for which a row must have been in its place before a click on it counts, in milliseconds. */
const SETTLED = 600;

/**
 * Tells which rows have been in their place for a while. When a row disappears, the next one moves
 * under the pointer: a click meant for the first, or the second click of two, must not act on it.
 *
 * `rows` returns the ids of all rows of the page from top to bottom. Must be called during component
 * setup.
 */
export function stillness(rows: () => string[]): (id: string) => boolean {
  let placed = new Map<string, { place: number; since: number }>();
  let still = $state.raw<ReadonlySet<string>>(new Set());

  let timer: ReturnType<typeof setTimeout> | undefined;

  function look() {
    const now = Date.now();
    const settled = new Set<string>();
    let next = Infinity;
    for (const [id, { since }] of placed) {
      if (since + SETTLED <= now) settled.add(id);
      else next = Math.min(next, since + SETTLED);
    }
    still = settled;
    clearTimeout(timer);
    if (next < Infinity) timer = setTimeout(look, next - now);
  }

  $effect.pre(() => {
    const now = Date.now();
    const before = placed;
    placed = new Map(
      rows().map((id, place) => {
        const was = before.get(id);
        return [id, was?.place === place ? was : { place, since: now }];
      }),
    );
    look();
  });
  onDestroy(() => clearTimeout(timer));
  return (id) => still.has(id);
}
