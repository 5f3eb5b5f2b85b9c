import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { render } from "@testing-library/svelte";
import { expect, test } from "vitest";

import { live } from "./test-views";
import { en } from "./lib/words/en";
import Now from "./parts/Now.svelte";
import Overlay from "./parts/Overlay.svelte";

const payloads = [
  `<script>globalThis.hit = 1</script>`,
  `<img src=x onerror="globalThis.hit = 1">`,
  `"><svg onload=globalThis.hit=1>`,
  `{@html "<b>"}`,
  `javascript:globalThis.hit=1`,
  "`<img src=x onerror=globalThis.hit=1>` and `",
  `</p></main><iframe srcdoc="<script>parent.hit=1</script>">`,
  `\u202eevil\u0000\u001b[31m`,
];

const refuse = () => Promise.reject(new Error("not asked for"));
const actions = {
  setMonitoring: refuse,
  setOverlay: refuse,
  setAutostart: refuse,
  cancelJob: refuse,
  decide: refuse,
  revoke: refuse,
};

test.each(payloads)("%j stays text, whoever sends it", (payload) => {
  const hop = { state: "down", name: payload, problem: payload } as const;
  const job = { ...live_job(), who: payload, model: payload };
  const who = { name: payload, file: payload, origin: payload };
  const pairs = {
    waiting: [{ id: "1", who, command: payload, until: 0 }],
    allowed: [{ id: "1", who, since: 0 }],
  };
  const view = { ...live({ text: payload, jobs: [job], relay: hop, engine: hop }), pairs };
  for (const { container } of [
    render(Now, { view, now: 0, words: en, actions }),
    render(Overlay, { link: view.link, now: 0, words: en }),
  ]) {
    expect(container.textContent).toContain(payload);
    expect(container.querySelector("script, img, iframe, b, [onload], [onerror], a")).toBeNull();
  }
  expect("hit" in globalThis).toBe(false);
});

test("no source turns text into markup", () => {
  const sources = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((name) =>
    /\.(svelte|ts)$/.test(name) && !name.endsWith(".test.ts"),
  );
  expect(sources.length).toBeGreaterThan(10);
  for (const name of sources) {
    expect(readFileSync(join("src", name), "utf8"), name).not.toMatch(/@html|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(/);
  }
});

test("nothing moves for ever, and nothing moves where the owner wants no motion", () => {
  const styles = readdirSync("src", { recursive: true, encoding: "utf8" })
    .filter((name) => /\.(svelte|css)$/.test(name))
    .map((name) => readFileSync(join("src", name), "utf8"))
    .join("\n");
  expect(styles).not.toMatch(/@keyframes|animation|requestAnimationFrame|infinite/);
  for (const [, time] of styles.matchAll(/transition:[^;]*?(\S+) ease/g)) expect(time).toBe("var(--change)");
  const times = [...styles.matchAll(/--change: (\d+)ms/g)].map(([, ms]) => Number(ms));
  expect(times).toEqual([200, 0]);
});

function live_job() {
  const { link } = live();
  if (link.kind !== "live") throw new Error("the fixture is live");
  return link.status.jobs[0]!;
}
