import { expect, test } from "vitest";

import type { Minute } from "./api";
import { lastHour, line, roundUp, roundUpTime } from "./chart";

const minute = (at: number): Minute => ({ at, completed: 1, failed: 0, cancelled: 0, tokens: 1 });

test("the running minute stands last and what is older than an hour nowhere", () => {
  const now = 100 * 60_000 + 1_234;
  const hour = lastHour([minute(40 * 60_000), minute(41 * 60_000), minute(100 * 60_000), minute(101 * 60_000)], now);
  expect(hour.length).toBe(60);
  expect(hour.map((one) => one?.at).filter((at) => at !== undefined)).toEqual([41 * 60_000, 100 * 60_000]);
  expect(hour[0]?.at).toBe(41 * 60_000);
  expect(hour[59]?.at).toBe(100 * 60_000);
});

test("an axis ends at a round number with a whole half", () => {
  expect([0, 1, 3, 4, 5, 9, 11, 45, 70, 1000].map(roundUp)).toEqual([2, 2, 4, 4, 6, 10, 20, 60, 100, 1000]);
  expect([0, 320, 2_900, 61_000].map(roundUpTime)).toEqual([100, 400, 4_000, 120_000]);
});

test("a line is broken where nothing is known", () => {
  const path = line([1, 2, undefined, 4, undefined, undefined, 7], (i) => i, (v) => v);
  expect(path).toBe("M0.0 1.0L1.0 2.0M3.0 4.0h0.01M6.0 7.0h0.01");
});
