import { expect, test } from "vitest";

import { elapsed, rate } from "./format";

test("elapsed time reads like a stopwatch", () => {
  expect(elapsed(0, 7_900)).toBe("0:07");
  expect(elapsed(0, 754_000)).toBe("12:34");
  expect(elapsed(0, 3_723_000)).toBe("1:02:03");
  expect(elapsed(5_000, 0)).toBe("0:00");
});

test("a rate has one decimal while small and is absent before the first token", () => {
  expect(rate(31.54, "en")).toBe("31.5");
  expect(rate(31, "en")).toBe("31.0");
  expect(rate(31.54, "pl")).toBe("31,5");
  expect(rate(1234.5, "en")).toBe("1,235");
  expect(rate(0, "en")).toBeUndefined();
  expect(rate(Number.NaN, "en")).toBeUndefined();
});
