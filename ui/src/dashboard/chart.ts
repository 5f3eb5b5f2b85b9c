import type { Minute } from "./api";

export const MINUTES = 60;
const MINUTE = 60_000;

/** The last hour, one entry per minute, the current minute last; `undefined` where nothing ended. */
export function lastHour(minutes: readonly Minute[], now: number): (Minute | undefined)[] {
  const last = Math.floor(now / MINUTE);
  const hour: (Minute | undefined)[] = new Array<undefined>(MINUTES).fill(undefined);
  for (const minute of minutes) {
    const at = MINUTES - 1 - (last - Math.floor(minute.at / MINUTE));
    if (at >= 0 && at < MINUTES) hour[at] = minute;
  }
  return hour;
}

/** The smallest round number that is at least `value`: the top of an axis with two equal halves. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 4, 6, 10]) if (step * power >= value) return Math.max(2, step * power);
  return 10 * power;
}

/** The smallest round time that is at least `ms`; its half is round in the unit that is shown. */
export function roundUpTime(ms: number): number {
  if (ms < 1_000) return Math.max(100, roundUp(ms));
  if (ms < 60_000) return roundUp(ms / 1_000) * 1_000;
  return roundUp(ms / 60_000) * 60_000;
}

/** An SVG path through the known values, with gaps where there is none; a single point is a short dash. */
export function line(values: readonly (number | undefined)[], x: (i: number) => number, y: (v: number) => number): string {
  const at = (i: number, value: number) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
  let path = "";
  values.forEach((value, i) => {
    if (value === undefined) return;
    const isFirst = values[i - 1] === undefined;
    const isLast = values[i + 1] === undefined;
    path += isFirst ? `M${at(i, value)}` : `L${at(i, value)}`;
    if (isFirst && isLast) path += "h0.01";
  });
  return path;
}
