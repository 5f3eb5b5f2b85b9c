import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Refused } from "./api";
import { eventReader, follow, pause, type Event } from "./stream";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("events are the same wherever the text is cut", () => {
  const text = "event: minutes\ndata: []\n\n: ping\n\nevent: overview\ndata: {}\n\n";
  const whole = eventReader()(text);
  expect(whole).toEqual([
    { name: "minutes", data: "[]" },
    { name: "overview", data: "{}" },
  ]);
  for (let cut = 0; cut <= text.length; cut += 1) {
    const read = eventReader();
    expect([...read(text.slice(0, cut)), ...read(text.slice(cut))]).toEqual(whole);
  }
});

test("pauses grow to half a minute and are never the same for all", () => {
  expect([0, 1, 2, 10].map((n) => pause(n, 1))).toEqual([1_000, 2_000, 4_000, 30_000]);
  expect(pause(10, 0)).toBe(15_000);
});

function stage(onEvent?: (event: Event) => void) {
  const opened: { say: (text: string) => void; ends: () => void; signal: AbortSignal }[] = [];
  let refusal: Refused | undefined;
  const heard: (Event | string)[] = [];
  const open = (signal: AbortSignal): Promise<Response> => {
    if (refusal) return Promise.reject(refusal);
    let to!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (to = controller) });
    signal.addEventListener("abort", () => to.error(new Error("aborted")));
    opened.push({ say: (text) => to.enqueue(new TextEncoder().encode(text)), ends: () => to.close(), signal });
    return Promise.resolve(new Response(body));
  };
  const stop = follow(
    open,
    {
      onEvent: onEvent ?? ((event) => heard.push(event)),
      onLive: () => heard.push("live"),
      onLost: () => heard.push("lost"),
      onRefused: () => heard.push("refused"),
    },
    () => 1,
  );
  return { opened, heard, stop, refuse: (why: Refused) => (refusal = why) };
}

const settle = () => vi.advanceTimersByTimeAsync(0);

test("a stream that breaks is opened again, later each time, and at once after it was live", async () => {
  const { opened, heard, stop } = stage();
  await settle();
  opened[0]!.say("event: overview\ndata: 1\n\n");
  await settle();
  expect(heard).toEqual(["live", { name: "overview", data: "1" }]);
  opened[0]!.ends();
  await settle();
  expect(heard.at(-1)).toBe("lost");
  await vi.advanceTimersByTimeAsync(999);
  expect(opened.length).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(opened.length).toBe(2);
  opened[1]!.ends();
  await settle();
  await vi.advanceTimersByTimeAsync(1_999);
  expect(opened.length).toBe(2);
  await vi.advanceTimersByTimeAsync(1);
  expect(opened.length).toBe(3);
  stop();
});

test("a stream without a sign of life is given up", async () => {
  const { opened, heard, stop } = stage();
  await settle();
  opened[0]!.say(": ping\n\n");
  await settle();
  await vi.advanceTimersByTimeAsync(70_001);
  expect(opened[0]!.signal.aborted).toBe(true);
  expect(heard).toEqual(["live", "lost"]);
  stop();
});

test("a key that is good no more ends it, and nothing is tried again", async () => {
  const { opened, heard, stop, refuse } = stage();
  await settle();
  refuse(new Refused(401, "revoked"));
  opened[0]!.ends();
  await settle();
  await vi.advanceTimersByTimeAsync(120_000);
  expect(heard).toEqual(["lost", "refused"]);
  expect(opened.length).toBe(1);
  stop();
});

test("a relay that takes the request and answers nothing is given up", async () => {
  const heard: string[] = [];
  const signals: AbortSignal[] = [];
  const open = (signal: AbortSignal) =>
    new Promise<Response>((_, reject) => {
      signals.push(signal);
      signal.addEventListener("abort", () => reject(new Error("aborted")));
    });
  const hearer = { onEvent: () => {}, onLive: () => {}, onLost: () => heard.push("lost"), onRefused: () => {} };
  const stop = follow(open, hearer, () => 1);
  await vi.advanceTimersByTimeAsync(70_001);
  expect(heard).toEqual(["lost"]);
  expect(signals[0]!.aborted).toBe(true);
  stop();
});

test("a stream whose event cannot be read is not left open beside the next", async () => {
  const { opened, heard, stop } = stage(() => {
    throw new Error("not this one");
  });
  await settle();
  opened[0]!.say("event: overview\ndata: {\n\n");
  await settle();
  expect(heard).toEqual(["live", "lost"]);
  expect(opened[0]!.signal.aborted).toBe(true);
  stop();
});
