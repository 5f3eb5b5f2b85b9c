import { expect, test } from "vitest";

import { fixture } from "../test-views";
import type { Carrier, HopState, LiveJob, Phase, Status } from "./protocol";
import { en } from "./words/en";

// Lists every key of the types: a missing or additional one does not compile. Optional fields are not in the fixture.
const statusKeys: Record<Exclude<keyof Status, "publishers">, true> = {
  status: true,
  text: true,
  is_listening: true,
  is_speaking: true,
  wake_word_detected: true,
  overlay_visible: true,
  monitoring: true,
  jobs: true,
  relay: true,
  engine: true,
  carrier: true,
  seq: true,
};
const jobKeys: Record<keyof LiveJob, true> = {
  id: true,
  who: true,
  model: true,
  op: true,
  started_at: true,
  tokens: true,
  tokens_per_second: true,
};

test("the types have exactly the fields that the agent sends", () => {
  expect(fixture.type).toBe("status");
  expect(Object.keys(fixture.data).sort()).toEqual(Object.keys(statusKeys).sort());
  expect(Object.keys(fixture.data.jobs[0]!).sort()).toEqual(Object.keys(jobKeys).sort());
});

test("the fixture's values are of the types' kinds", () => {
  const { data } = fixture;
  expect(typeof data.seq).toBe("number");
  expect(typeof data.jobs[0]!.started_at).toBe("number");
  expect(Object.keys(en.mood)).toContain(data.status satisfies Phase);
  expect(Object.keys(en.hop)).toContain(data.relay.state satisfies HopState);
  expect(Object.keys(en.carrier)).toContain(data.carrier satisfies Carrier | null);
});
