import type { Hop, Link } from "./protocol";
import type { Mood, Words } from "./words";

/** What a page shows of the agent as a whole. */
export function moodOf(link: Link): Mood {
  return link.kind === "live" ? link.status.status : "lost";
}

/** The line under the mood: what is wrong where something is, else what the mood means. */
export function hintOf(link: Link, words: Words): string {
  const mood = moodOf(link);
  if (link.kind === "lost") return words.hint.lost;
  const { relay, engine } = link.status;
  const problem = (hop: Hop) => hop.problem || words.hint[mood];
  if (mood === "relay_offline") return problem(relay);
  if (mood === "engine_offline") return problem(engine);
  return words.hint[mood];
}
