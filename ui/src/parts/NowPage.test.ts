import { fireEvent, render, screen, within } from "@testing-library/svelte";
import { tick } from "svelte";
import { afterEach, expect, test, vi } from "vitest";

import { until } from "../test-until";
import { fixture, live, lost, scripted } from "../test-views";
import type { View } from "../lib/protocol";
import type { Actions } from "../lib/tauri";
import { en } from "../lib/words/en";
import NowPage from "./NowPage.svelte";

afterEach(() => vi.useRealTimers());

async function page(view: View) {
  const desktop = scripted();
  const actions = {
    setMonitoring: vi.fn(async () => {}),
    setOverlay: vi.fn(async () => {}),
    setAutostart: vi.fn(async () => {}),
    cancelJob: vi.fn(async () => {}),
    decide: vi.fn(async (_: string, _word: string) => {}),
    revoke: vi.fn(async () => {}),
  } satisfies Actions;
  render(NowPage, { source: desktop.source, languages: ["en"], actions });
  await until(() => expect(desktop.listening).toBe(1));
  const say = async (next: View) => {
    desktop.say(next);
    await tick();
  };
  await say(view);
  return { actions, say };
}

const button = (name: string) => screen.getByRole("button", { name });
const toggle = (name: RegExp) => screen.getByRole("switch", { name });

test("a live job is shown with who asked, and can be cancelled", async () => {
  vi.useFakeTimers();
  const { actions } = await page(live());
  expect(screen.getByTestId("who").textContent).toBe("laptop");
  expect(screen.getByTestId("job").textContent).toContain("smollm2:135m");
  expect(screen.getByTestId("job").textContent).toContain("31.5 tokens/s");
  await vi.advanceTimersByTimeAsync(600);
  await fireEvent.click(button("Cancel the job of laptop"));
  expect(actions.cancelJob).toHaveBeenCalledWith("000102030405060708090a0b0c0d0e0f");
});

test("the way is shown hop by hop, with the carrier", async () => {
  await page(live());
  const [relay, engine] = screen.getAllByTestId("hop");
  expect(relay!.textContent).toContain("http://127.0.0.1:8787");
  expect(relay!.textContent).toContain("connected over WebSocket");
  expect(engine!.textContent).toContain("builtin");
  expect(screen.queryByTestId("help")).toBeNull();
});

test("only the broken hop is marked, named and explained", async () => {
  const engine = { state: "down", name: "http://127.0.0.1:11434", problem: "connection refused" } as const;
  await page(live({ status: "engine_offline", jobs: [], engine }));
  const hops = screen.getAllByTestId("hop");
  expect(hops.map((hop) => hop.dataset["state"])).toEqual(["up", "down"]);
  expect(screen.getByTestId("problem").textContent).toBe("connection refused");
  expect(screen.getByTestId("help").textContent).toContain("ollama serve");
});

test("pause asks for pause, and only the agent's word turns the button over", async () => {
  const { actions, say } = await page(live());
  await fireEvent.click(button("Pause"));
  expect(actions.setMonitoring).toHaveBeenCalledWith(false);
  expect(button("Pause")).toBeTruthy();
  await say(live({ status: "paused", monitoring: false, jobs: [] }));
  await fireEvent.click(button("Resume"));
  expect(actions.setMonitoring).toHaveBeenLastCalledWith(true);
});

test("the switches show what is and ask for the opposite", async () => {
  const { actions } = await page(live({ overlay_visible: true }, false));
  expect(toggle(/Show overlay/).getAttribute("aria-checked")).toBe("true");
  expect(toggle(/Start at login/).getAttribute("aria-checked")).toBe("false");
  await fireEvent.click(toggle(/Show overlay/));
  await fireEvent.click(toggle(/Start at login/));
  expect(actions.setOverlay).toHaveBeenCalledWith(false);
  expect(actions.setAutostart).toHaveBeenCalledWith(true);
});

test("a refusal is told, and forgotten at the next try", async () => {
  const { actions } = await page(live());
  actions.setAutostart.mockRejectedValueOnce("the folder is read-only");
  await fireEvent.click(toggle(/Start at login/));
  expect((await screen.findByRole("alert")).textContent).toContain("the folder is read-only");
  await fireEvent.click(toggle(/Start at login/));
  expect(screen.queryByRole("alert")).toBeNull();
});

test("what was refused in the tray is told in the window", async () => {
  const { say } = await page(live());
  await say({ ...live(), refused: "HEARTH_ENGINE_KEY stands in no file" });
  expect(screen.getByRole("alert").textContent).toBe(en.refused("HEARTH_ENGINE_KEY stands in no file"));
  await say(live());
  expect(screen.queryByRole("alert")).toBeNull();
});

test("an empty list says what will be there", async () => {
  const { say } = await page(live({ status: "ready", jobs: [] }));
  expect(screen.getByTestId("empty").textContent).toBe(en.nothingRunning);
  await say(live({ status: "paused", monitoring: false, jobs: [] }));
  expect(screen.getByTestId("empty").textContent).toBe(en.nothingRunningPaused);
});

test("a lost agent leaves nothing to click and claims nothing", async () => {
  const { say } = await page(live());
  await say(lost);
  expect(screen.getByTestId("state").textContent).toBe("Agent not reachable");
  expect(screen.queryByRole("button", { name: "Pause" })).toBeNull();
  expect(screen.queryByTestId("job")).toBeNull();
  expect(toggle(/Show overlay/)).toHaveProperty("disabled", true);
  expect(screen.getAllByTestId("hop").map((hop) => hop.dataset["state"])).toEqual(["unknown", "unknown"]);
});

test("a missing tray is told with what to install", async () => {
  await page({ ...live(), no_tray: "apt install libayatana-appindicator3-1" });
  expect(screen.getByTestId("no-tray").textContent).toContain("libayatana");
});

test("a relay that refuses the key is reached, and nothing is said of networks", async () => {
  const relay = { state: "down", name: "https://relay.example", problem: "the relay refused the key" } as const;
  await page(live({ status: "error", jobs: [], carrier: null, relay }));
  const hop = screen.getAllByTestId("hop")[0]!;
  expect(within(hop).getByTestId("hop-state").textContent).toBe(en.mood.error);
  expect(within(hop).getByTestId("problem").textContent).toBe("the relay refused the key");
  expect(within(hop).queryByTestId("help")).toBeNull();
});

test("without a relay it says how to choose one, not that one is away", async () => {
  const relay = { state: "down", name: "not configured", problem: "no relay is set up" } as const;
  await page(live({ status: "relay_offline", jobs: [], carrier: null, relay }));
  expect(screen.getByTestId("state").textContent).toBe(en.mood.no_relay);
  expect(screen.getByTestId("help").textContent).toBe(en.noRelayHelp.replaceAll("`", ""));
  expect(screen.queryByTestId("problem")).toBeNull();
});

test("what is to be typed is shown as code, without its backticks", async () => {
  const relay = { state: "down", name: "https://relay.example", problem: "its first message was not `Welcome` but ` <b>" } as const;
  await page(live({ status: "relay_offline", jobs: [], carrier: null, relay }));
  const code = (id: string) => [...screen.getByTestId(id).querySelectorAll("code")].map((code) => code.textContent);
  expect(code("help")).toEqual(["hearth relay"]);
  expect(screen.getByTestId("help").textContent).not.toContain("`");
  expect(code("problem")).toEqual(["Welcome"]);
  expect(code("hint")).toEqual(["Welcome"]);
  expect(screen.getByTestId("problem").textContent).toBe("its first message was not Welcome but ` <b>");
});

const dock = { name: "my dock", file: "/usr/bin/python3", process: 4711 };
const waiting = { id: "7", who: dock, command: "set_monitoring", until: 1790000000000 };

test("a program that asks is shown with what is known of it, and each answer is passed on", async () => {
  vi.useFakeTimers();
  const { actions, say } = await page({ ...live(), pairs: { waiting: [waiting], allowed: [] } });
  const ask = screen.getByTestId("ask");
  expect(ask.textContent).toContain("my dock wants to pause or resume Hearth");
  expect(screen.getByTestId("from").textContent).toBe("/usr/bin/python3 · process 4711");
  await vi.advanceTimersByTimeAsync(600);
  for (const [name, word] of [
    ["Allow once", "once"],
    ["Always allow", "always"],
    ["Deny", "no"],
  ] as const) {
    await fireEvent.click(button(`${name}: my dock`));
    expect(actions.decide).toHaveBeenLastCalledWith("7", word);
  }
  expect(screen.getByTestId("ask")).toBeTruthy();
  await say({ ...live(), pairs: { waiting: [], allowed: [] } });
  expect(screen.queryByTestId("ask")).toBeNull();
});

test("a double click answers one program and never the next, which stands in its place by then", async () => {
  vi.useFakeTimers();
  const other = { ...waiting, id: "8", who: { name: "other" } };
  const { actions, say } = await page({ ...live(), pairs: { waiting: [waiting, other], allowed: [] } });
  const first = () => within(screen.getAllByTestId("ask")[0]!).getByText(en.allowAlways);
  await vi.advanceTimersByTimeAsync(600);
  await fireEvent.click(first());
  await say({ ...live(), pairs: { waiting: [other], allowed: [] } });
  await vi.advanceTimersByTimeAsync(500);
  expect(first().getAttribute("aria-disabled")).toBe("true");
  await fireEvent.click(first());
  expect(actions.decide.mock.calls).toEqual([["7", "always"]]);
  // A change that moves no question causes no delay.
  await say({ ...live({ status: "ready" }), pairs: { waiting: [other], allowed: [] } });
  await vi.advanceTimersByTimeAsync(100);
  expect(first().getAttribute("aria-disabled")).toBe("false");
  await fireEvent.click(first());
  expect(actions.decide).toHaveBeenLastCalledWith("8", "always");
});

test("a click meant for a job that has just ended does not cancel the next one", async () => {
  vi.useFakeTimers();
  const job = structuredClone(fixture.data.jobs[0]!);
  const next = { ...job, id: "ff", who: "phone" };
  const { actions, say } = await page(live({ jobs: [job, next] }));
  await vi.advanceTimersByTimeAsync(600);
  // Changed figures move no row.
  await say(live({ jobs: [{ ...job, tokens_per_second: 7 }, next] }));
  await fireEvent.click(button("Cancel the job of phone"));
  expect(actions.cancelJob).toHaveBeenCalledTimes(1);
  await say(live({ jobs: [next] }));
  await fireEvent.click(button("Cancel the job of phone"));
  expect(actions.cancelJob).toHaveBeenCalledTimes(1);
  // A job that appears below is new in its place; this one keeps its place.
  await vi.advanceTimersByTimeAsync(300);
  await say(live({ jobs: [next, job] }));
  await vi.advanceTimersByTimeAsync(300);
  await fireEvent.click(button("Cancel the job of laptop"));
  expect(actions.cancelJob).toHaveBeenCalledTimes(1);
  await fireEvent.click(button("Cancel the job of phone"));
  expect(actions.cancelJob).toHaveBeenLastCalledWith("ff");
  expect(actions.cancelJob).toHaveBeenCalledTimes(2);
});

test("when a row goes that had the focus, its part of the page has it", async () => {
  vi.useFakeTimers();
  const allowed = { id: "1", who: dock, since: 0 };
  const { say } = await page({ ...live(), pairs: { waiting: [waiting], allowed: [allowed] } });
  const section = (name: string) => screen.getByRole("region", { name });
  button("Cancel the job of laptop").focus();
  await say({ ...live({ jobs: [] }), pairs: { waiting: [waiting], allowed: [allowed] } });
  expect(document.activeElement).toBe(section(en.running));
  button("Revoke access for my dock").focus();
  const other = { ...allowed, id: "2" };
  await say({ ...live({ jobs: [] }), pairs: { waiting: [waiting], allowed: [other] } });
  expect(document.activeElement).toBe(section(en.allowed));
  // The whole section disappears with its last row, and the page gets the focus.
  screen.getByText(en.deny).focus();
  await say({ ...live({ jobs: [] }), pairs: { waiting: [], allowed: [other] } });
  expect(document.activeElement).toBe(screen.getByRole("main"));
  // Focus elsewhere is not taken.
  button("Pause").focus();
  await say(live({ jobs: [] }));
  expect(document.activeElement).toBe(button("Pause"));
});

test("each time the settings are asked for, the page goes there and the keyboard with it", async () => {
  const seen: Element[] = [];
  Element.prototype.scrollIntoView = function () {
    seen.push(this);
  };
  const { say } = await page({ ...live(), settings: 1 });
  const settings = screen.getByRole("region", { name: en.settings });
  expect(document.activeElement).toBe(settings);
  // What happens afterwards moves nobody.
  button("Pause").focus();
  await say({ ...live({ jobs: [] }), settings: 1 });
  expect(document.activeElement).toBe(button("Pause"));
  expect(seen).toEqual([settings]);
  await say({ ...live(), settings: 2 });
  expect(document.activeElement).toBe(settings);
  expect(seen).toEqual([settings, settings]);
});

test("a window that was just opened begins at its top", async () => {
  const { say } = await page(live());
  await say(live({ jobs: [] }));
  expect(document.activeElement).toBe(document.body);
});

test("to a screen reader the state is heading and status, and each answer says to whom", async () => {
  vi.useFakeTimers();
  const { say } = await page(live());
  const title = screen.getByRole("heading", { level: 1 });
  expect(within(title).getByRole("status").textContent).toBe("Working");
  const told = screen.getByTestId("asked");
  expect([told.getAttribute("role"), told.textContent]).toEqual(["status", ""]);
  const other = { ...waiting, id: "8", who: { name: "other" } };
  await say({ ...live(), pairs: { waiting: [waiting, other], allowed: [] } });
  expect(screen.getByTestId("asked")).toBe(told);
  expect(told.textContent).toContain("my dock wants to pause");
  expect(told.textContent).toContain("other wants to pause");
  const names = screen.getAllByTestId("ask").flatMap((ask) => within(ask).getAllByRole("button"));
  const said = names.map((one) => one.getAttribute("aria-label"));
  expect(said).toContain("Always allow: my dock");
  expect(new Set(said).size).toBe(6);
});

test("what a program calls itself is text and nothing else", async () => {
  const who = { name: "<img src=x onerror=alert(1)>" };
  await page({ ...live(), pairs: { waiting: [{ ...waiting, who }], allowed: [] } });
  expect(screen.getByTestId("ask").textContent).toContain("<img src=x");
  expect(document.querySelector("img")).toBeNull();
});

test("a program that is allowed is listed and can be revoked", async () => {
  vi.useFakeTimers();
  const { actions } = await page({ ...live(), pairs: { waiting: [], allowed: [{ id: "1", who: dock, since: 0 }] } });
  expect(screen.getByTestId("allowed").textContent).toContain("my dock");
  await vi.advanceTimersByTimeAsync(600);
  await fireEvent.click(button("Revoke access for my dock"));
  expect(actions.revoke).toHaveBeenCalledWith("1");
});
