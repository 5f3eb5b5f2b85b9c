import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { fixture, live, lost } from "../test-views";
import { browserSource } from "./browser";
import type { View } from "./protocol";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

async function following() {
  const streams: { say: (data: string) => void; breaks: () => void; closed: boolean }[] = [];
  const seen: View[] = [];
  const source = browserSource(
    (say, breaks) => {
      const stream = { say, breaks, closed: false };
      streams.push(stream);
      return () => void (stream.closed = true);
    },
    () => 0.5,
  );
  const stop = await source.listen((view) => seen.push(view));
  return { streams, seen, stop };
}

test("every event is a view of its own", async () => {
  const { streams, seen } = await following();
  streams[0]!.say(JSON.stringify(fixture.data));
  streams[0]!.say(JSON.stringify({ ...fixture.data, status: "paused" }));
  expect(seen).toEqual([live(), live({ status: "paused" })]);
  expect(vi.getTimerCount()).toBe(0);
});

test("what is no status is passed over", async () => {
  const { streams, seen } = await following();
  for (const data of ["", "{", "null", "7", '{"heartbeat":true}', '{"status":7,"jobs":[]}']) {
    streams[0]!.say(data);
  }
  expect(seen).toEqual([]);
});

test("a broken stream is shown at once and opened anew for ever", async () => {
  const { streams, seen } = await following();
  for (let tries = 1; tries <= 3; tries++) {
    streams.at(-1)!.breaks();
    expect(seen.at(-1)).toEqual(lost);
    expect(streams.at(-1)!.closed).toBe(true);
    await vi.advanceTimersByTimeAsync(2999);
    expect(streams.length).toBe(tries);
    await vi.advanceTimersByTimeAsync(1);
    expect(streams.length).toBe(tries + 1);
  }
  streams.at(-1)!.say(JSON.stringify(fixture.data));
  expect(seen.at(-1)).toEqual(live());
});

test("an overlay that its owner hid stays hidden while its agent is away", async () => {
  const { streams, seen } = await following();
  const hidden = { ...fixture.data, overlay_visible: false };
  streams[0]!.say(JSON.stringify(hidden));
  streams[0]!.breaks();
  await vi.advanceTimersByTimeAsync(3000);
  streams[1]!.breaks();
  expect(seen).toEqual([live({ overlay_visible: false })]);
  await vi.advanceTimersByTimeAsync(3000);
  streams[2]!.say(JSON.stringify({ ...hidden, overlay_visible: true }));
  streams[2]!.breaks();
  expect(seen.at(-1)).toEqual(lost);
});

test("after the end no stream is open and none is opened", async () => {
  const { streams, stop } = await following();
  streams[0]!.breaks();
  stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(streams.length).toBe(1);
  expect(streams[0]!.closed).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});
