import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { ticker } from "./clock";

let hidden = false;

beforeEach(() => {
  vi.useFakeTimers();
  hidden = false;
  vi.spyOn(document, "hidden", "get").mockImplementation(() => hidden);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function hide(value: boolean) {
  hidden = value;
  document.dispatchEvent(new Event("visibilitychange"));
}

test("it ticks once a second, and only while wanted", () => {
  let busy = false;
  const tick = vi.fn();
  const hand = ticker(() => busy, tick);
  hand.update();
  expect(vi.getTimerCount()).toBe(0);

  busy = true;
  hand.update();
  hand.update();
  expect(vi.getTimerCount()).toBe(1);
  vi.advanceTimersByTime(3000);
  expect(tick).toHaveBeenCalledTimes(4);

  busy = false;
  hand.update();
  expect(vi.getTimerCount()).toBe(0);
  hand.stop();
});

test("a page that nobody sees does not tick", () => {
  const tick = vi.fn();
  const hand = ticker(() => true, tick);
  hand.update();
  hide(true);
  expect(vi.getTimerCount()).toBe(0);
  hide(false);
  expect(vi.getTimerCount()).toBe(1);
  hand.stop();
  expect(vi.getTimerCount()).toBe(0);
  hide(true);
  hide(false);
  expect(vi.getTimerCount()).toBe(0);
});
