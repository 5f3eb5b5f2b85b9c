import { render, screen } from "@testing-library/svelte";
import { tick } from "svelte";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { until } from "../test-until";
import { fixture, live, lost, scripted } from "../test-views";
import type { Phase } from "../lib/protocol";
import { en } from "../lib/words/en";
import OverlayPage from "./OverlayPage.svelte";

beforeEach(() => {
  vi.useFakeTimers({ now: fixture.data.jobs[0]!.started_at + 12_000 });
});
afterEach(() => vi.useRealTimers());

async function page(languages = ["en"]) {
  const desktop = scripted();
  const drawn = render(OverlayPage, { source: desktop.source, languages });
  await vi.advanceTimersByTimeAsync(0);
  return {
    ...drawn,
    desktop,
    async say(view: ReturnType<typeof live>) {
      desktop.say(view);
      await tick();
    },
  };
}

const state = () => screen.getByTestId("state").textContent;

test("before anything arrived it does not pretend to know", async () => {
  await page();
  expect(state()).toBe("Agent not reachable");
});

test("a browser source draws nothing while its first status is on its way", async () => {
  const { source, say } = scripted();
  const drawn = render(OverlayPage, { source, languages: ["en"], patience: 2000 });
  await vi.advanceTimersByTimeAsync(1999);
  expect(screen.queryByTestId("pill")).toBeNull();
  await vi.advanceTimersByTimeAsync(1);
  expect(state()).toBe("Agent not reachable");
  drawn.unmount();
  render(OverlayPage, { source, languages: ["en"], patience: 2000 });
  await vi.advanceTimersByTimeAsync(0);
  say(live());
  await tick();
  expect(state()).toBe("Working for laptop");
  say(lost);
  await tick();
  expect(state()).toBe("Agent not reachable");
});

test("while working it says for whom, with which model, how fast and how long", async () => {
  const { say } = await page();
  await say(live());
  expect(state()).toBe("Working for laptop");
  expect(screen.getByTestId("model").textContent).toBe("smollm2:135m");
  expect(screen.getByTestId("speed").textContent).toBe("31.5 tokens/s");
  expect(screen.getByTestId("elapsed").textContent).toBe("0:12");
  await vi.advanceTimersByTimeAsync(2000);
  expect(screen.getByTestId("elapsed").textContent).toBe("0:14");
});

test("of several jobs it names the first and counts the others", async () => {
  const { say } = await page();
  const [job] = fixture.data.jobs;
  await say(live({ jobs: [job!, { ...job!, id: "b" }, { ...job!, id: "c" }] }));
  expect(state()).toBe("Working for laptop");
  expect(screen.getByTestId("more").textContent).toBe("+2");
});

test("at rest no timer runs", async () => {
  const { say, unmount } = await page();
  await say(live());
  expect(vi.getTimerCount()).toBe(1);
  await say(live({ status: "ready", jobs: [] }));
  expect(vi.getTimerCount()).toBe(0);
  expect(state()).toBe("Ready");
  await say(live());
  unmount();
  expect(vi.getTimerCount()).toBe(0);
});

test("a lost agent is shown at once, and the next status heals it", async () => {
  const { say } = await page();
  await say(live());
  await say(lost);
  expect(state()).toBe("Agent not reachable");
  expect(screen.queryByTestId("model")).toBeNull();
  await say(live({ status: "paused", monitoring: false, jobs: [] }));
  expect(state()).toBe("Paused");
});

test("a broken hop is told in its own words", async () => {
  const { say } = await page();
  const relay = { state: "down", name: "https://relay.example", problem: "connection refused" } as const;
  await say(live({ status: "relay_offline", jobs: [], relay }));
  expect(state()).toBe("Relay not reachable");
  expect(screen.getByTestId("hint").textContent).toBe("connection refused");
});

test("a refused key is told with what helps", async () => {
  const { say } = await page();
  const relay = { state: "down", name: "https://relay.example", problem: "the relay refused the key" } as const;
  await say(live({ status: "error", jobs: [], relay }));
  expect(state()).toBe("Needs your attention");
  expect(screen.getByTestId("hint").textContent).toBe("the relay refused the key");
});

test("every state has a shape of its own", async () => {
  const { say, container } = await page();
  const phases = Object.keys(en.mood).filter((mood) => mood !== "lost" && mood !== "no_relay") as Phase[];
  const shapes = new Set<string>();
  for (const status of phases) {
    await say(live({ status, jobs: [] }));
    shapes.add([...container.querySelectorAll("path")].map((path) => path.getAttribute("d")).join());
  }
  for (const view of [lost, live({ status: "relay_offline", jobs: [], relay: { state: "down", name: "" } })]) {
    await say(view);
    shapes.add([...container.querySelectorAll("path")].map((path) => path.getAttribute("d")).join());
  }
  expect(shapes.size).toBe(phases.length + 2);
});

test("it speaks the owner's language", async () => {
  const { say } = await page(["ru-RU"]);
  await say(live({ status: "paused", jobs: [] }));
  expect(state()).toBe("Приостановлен");
  await say({ ...live({ status: "paused", jobs: [] }), language: "pl" });
  expect(state()).toBe("Wstrzymane");
});

test("a hidden overlay shows nothing, and comes back", async () => {
  const desktop = scripted();
  render(OverlayPage, { source: desktop.source, languages: ["en"] });
  await until(() => expect(desktop.listening).toBe(1));
  for (const [overlay_visible, shown] of [
    [true, 1],
    [false, 0],
    [true, 1],
  ] as const) {
    desktop.say(live({ overlay_visible }));
    await tick();
    expect(screen.queryAllByTestId("pill")).toHaveLength(shown);
  }
});

test("what a silent assistant said last is marked", async () => {
  const desktop = scripted();
  render(OverlayPage, { source: desktop.source, languages: ["en"] });
  await until(() => expect(desktop.listening).toBe(1));
  const publisher = { name: "assistant", fields: ["is_speaking"], origin: "127.0.0.1:6001" };
  const said = { status: "speaking", is_speaking: true, jobs: [] } as const;
  for (const [stale, hint] of [
    [false, en.hint.speaking],
    [true, en.stale],
  ] as const) {
    desktop.say(live({ ...said, jobs: [], publishers: [{ ...publisher, stale }] }));
    await tick();
    expect(screen.getByTestId("hint").textContent).toBe(hint);
  }
});
