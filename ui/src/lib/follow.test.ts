import { expect, test, vi } from "vitest";

import { live, lost, scripted } from "../test-views";
import { followViews } from "./follow";
import type { View } from "./protocol";

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("the first view is the answer to the page's question", async () => {
  const seen: View[] = [];
  const desktop = scripted();
  followViews(desktop.source, (view) => seen.push(view));
  await settled();
  desktop.answer(live());
  await settled();
  expect(seen).toEqual([live()]);
});

test("an answer that a newer view has overtaken is dropped", async () => {
  const seen: View[] = [];
  const desktop = scripted();
  followViews(desktop.source, (view) => seen.push(view));
  await settled();
  desktop.say(live({ seq: 9 }));
  desktop.answer(live({ seq: 8 }));
  await settled();
  expect(seen).toEqual([live({ seq: 9 })]);
});

test("after the end nothing is heard and nobody listens", async () => {
  const seen: View[] = [];
  const desktop = scripted();
  const stop = followViews(desktop.source, (view) => seen.push(view));
  await settled();
  expect(desktop.listening).toBe(1);
  stop();
  desktop.answer(live());
  await settled();
  expect(desktop.listening).toBe(0);
  expect(seen).toEqual([]);
});

test("an end before the desktop answered leaves nobody listening", async () => {
  const desktop = scripted();
  followViews(desktop.source, () => {})();
  await settled();
  expect(desktop.listening).toBe(0);
});

test("a desktop that refuses is reported, and the page keeps saying that it knows nothing", async () => {
  const error = vi.spyOn(console, "error").mockImplementation(() => {});
  const seen: View[] = [];
  followViews({ listen: () => Promise.reject("denied"), snapshot: async () => lost }, (view) => seen.push(view));
  await settled();
  expect(error).toHaveBeenCalledOnce();
  expect(seen).toEqual([]);
  error.mockRestore();
});
