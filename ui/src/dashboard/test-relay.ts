// A relay for tests of the dashboard, and the page that shows it.
import { readFileSync } from "node:fs";

import { cleanup, fireEvent, render, screen } from "@testing-library/svelte";
import { afterEach, beforeEach, vi } from "vitest";

import { Refused, type Api, type Job, type Key, type Overview, type Page } from "./api";
import Dashboard from "./Dashboard.svelte";
import { words } from "./words";

export const fixture = JSON.parse(readFileSync("../crates/proto/fixtures/admin/overview.json", "utf8")) as Overview;
export const KEY = "hearth_0123456789ab_secret_sum";
export const job: Job = {
  id: "ab".repeat(16),
  state: "failed",
  account: "home",
  op: "chat",
  model: "m",
  priority: 5,
  attempt: 5,
  created_at: 1,
};
export const dead: Job = { ...job, error: { code: "engine_failed", message: "<b>it</b> broke" } };
export const own: Key = { id: "0123456789ab", name: "me", account: "default", scopes: ["admin"], serve: [], created_at: 1 };

// jsdom has neither; tests/dashboard uses a real browser.
beforeEach(() => {
  vi.stubGlobal("ResizeObserver", class { observe() {} unobserve() {} disconnect() {} });
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
    this.querySelector<HTMLElement>("[autofocus], input, button")?.focus();
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

export function relay(change: Partial<Api> = {}) {
  let say!: (text: string) => void;
  let isRetried = false;
  const { minutes, ...overview } = fixture;
  const api = {
    overview: vi.fn(async (key: string) => {
      if (key !== KEY) throw new Refused(401, "no");
      return fixture;
    }),
    events: vi.fn(async () => {
      let to!: ReadableStreamDefaultController<Uint8Array>;
      const body = new ReadableStream<Uint8Array>({ start: (controller) => void (to = controller) });
      say = (text) => to.enqueue(new TextEncoder().encode(text));
      say(`event: minutes\ndata: ${JSON.stringify(minutes)}\n\n`);
      say(`event: overview\ndata: ${JSON.stringify(overview)}\n\n`);
      return new Response(body);
    }),
    dead: vi.fn(async () => ({ jobs: isRetried ? [] : [dead] })),
    waiting: vi.fn(async (_key: string, _limit: number): Promise<Page> => ({ jobs: [] })),
    cancel: vi.fn(async () => {}),
    retry: vi.fn(async () => {
      isRetried = true;
      return { ...job, id: "cd".repeat(16) };
    }),
    keys: vi.fn(async () => [own]),
    createKey: vi.fn(async () => ({ ...own, id: "b", name: "ci", key: "hearth_new" })),
    revokeKey: vi.fn(async () => {}),
    ...change,
  } satisfies Api;
  const kept = new Map<string, string>();
  const store = {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => void kept.set(name, value),
    removeItem: (name: string) => void kept.delete(name),
  };
  render(Dashboard, { api, store, place: "relay.example", languages: ["en"] });
  return { api, kept, say: (text: string) => say(text) };
}

export async function enter(key: string) {
  const field = await screen.findByLabelText(words.key);
  await fireEvent.input(field, { target: { value: key } });
  await fireEvent.submit(field.closest("form")!);
}

/** Lets everything that is due happen. */
export const rest = () => new Promise((rested) => setTimeout(rested));
