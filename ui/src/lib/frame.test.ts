import { expect, test } from "vitest";

import { frameOf } from "./frame";

test.each([
  ["", "bottom-right", 1],
  ["?corner=top-left&scale=2.5", "top-left", 2.5],
  ["?corner=middle&scale=9", "bottom-right", 1],
  ["?scale=-1", "bottom-right", 1],
  ["?scale=NaN&corner=", "bottom-right", 1],
  ["?scale=Infinity", "bottom-right", 1],
  ["?scale=0.5&corner=bottom-left", "bottom-left", 0.5],
])("%j is %s at %d", (search, corner, scale) => {
  expect(frameOf(search)).toEqual({ corner, scale });
});
