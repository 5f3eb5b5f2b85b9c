import type { Hop, Link, Status } from "./protocol";
import type { Mood, Words } from "./words";

/** Whether a relay is set up: its name is then a URL. */
export function hasRelay(status: Status): boolean {
  return status.relay.name.includes("://");
}

/** The overall state that a page shows. */
export function moodOf(link: Link): Mood {
  if (link.kind === "lost") return "lost";
  const { status } = link;
  return status.status === "relay_offline" && !hasRelay(status) ? "no_relay" : status.status;
}

/** The line under the state: the problem if there is one, else an explanation. */
export function hintOf(link: Link, words: Words): string {
  const mood = moodOf(link);
  if (link.kind === "lost") return words.hint.lost;
  const { relay, engine } = link.status;
  const isHeard = mood === "speaking" || mood === "listening";
  if (isHeard && link.status.publishers?.some(({ stale }) => stale)) return words.stale;
  const problem = (hop: Hop) => hop.problem || words.hint[mood];
  if (mood === "relay_offline" || mood === "error") return problem(relay);
  if (mood === "engine_offline") return problem(engine);
  return words.hint[mood];
}
