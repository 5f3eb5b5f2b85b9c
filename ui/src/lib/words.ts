import type { Carrier, HopState, Phase } from "./protocol";
import { en } from "./words/en";
import { pl } from "./words/pl";
import { ru } from "./words/ru";

/** The overall state that a page shows: the agent's phase, that no relay is set up, or that the agent is lost. */
export type Mood = Phase | "no_relay" | "lost";

/** The commands that a program may need approval for. */
export const wishes = [
  "toggle_monitoring",
  "set_monitoring",
  "stop_tts",
  "set_volume",
  "show_overlay",
  "hide_overlay",
  "toggle_overlay",
  "cancel_job",
  "open_settings",
  "quit",
] as const;
export type Wish = (typeof wishes)[number];

export type Words = {
  language: string;
  mood: Record<Mood, string>;
  hint: Record<Mood, string>;
  stale: string;
  hop: Record<HopState, string>;
  carrier: Record<Carrier, string>;
  workingFor: (who: string) => string;
  tokensPerSecond: string;
  running: string;
  nothingRunning: string;
  nothingRunningPaused: string;
  cancel: string;
  cancelJob: (who: string) => string;
  way: string;
  relay: string;
  engine: string;
  nothingToReach: string;
  noRelayHelp: string;
  relayHelp: string;
  engineHelp: string;
  via: (carrier: string) => string;
  pause: string;
  resume: string;
  settings: string;
  showOverlay: string;
  showOverlayHint: string;
  autostart: string;
  autostartHint: string;
  refused: (reason: string) => string;
  asking: string;
  asks: (who: string, wish: string) => string;
  someProgram: string;
  process: (id: number) => string;
  askingHint: string;
  allowOnce: string;
  allowAlways: string;
  deny: string;
  allowed: string;
  allowedHint: string;
  revoke: string;
  revokeOf: (who: string) => string;
  wish: Record<Wish, string>;
};

const known: Record<string, Words> = { en, pl, ru };

/** The first known language of the list, or else English. */
export function wordsFor(languages: readonly string[]): Words {
  for (const language of languages) {
    const words = known[language.slice(0, 2).toLowerCase()];
    if (words) return words;
  }
  return en;
}
