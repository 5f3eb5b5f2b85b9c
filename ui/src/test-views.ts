import { readFileSync } from "node:fs";

import type { Source } from "./lib/follow";
import type { Status, View } from "./lib/protocol";

/** The same file is read by the Rust tests of the wire types. */
export const fixture = JSON.parse(readFileSync("../crates/proto/fixtures/status.json", "utf8")) as {
  type: string;
  data: Status;
};

export function live(change: Partial<Status> = {}, autostart = false): View {
  return { link: { kind: "live", status: { ...structuredClone(fixture.data), ...change } }, autostart };
}

export const lost: View = { link: { kind: "lost" }, autostart: false };

/** A desktop that sends what the test tells it to. */
export function scripted(first: View = lost) {
  const hearers = new Set<(view: View) => void>();
  let answer: (view: View) => void = () => {};
  const source: Source = {
    listen: async (onView) => {
      hearers.add(onView);
      return () => hearers.delete(onView);
    },
    snapshot: () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
  };
  return {
    source,
    /** The number of pages that listen. */
    get listening() {
      return hearers.size;
    },
    /** Answers the page's first request. */
    answer: (view: View = first) => answer(view),
    say: (view: View) => hearers.forEach((hear) => hear(view)),
  };
}
