import type { Carrier, HopState, Phase } from "./protocol";
import { en } from "./words/en";
import { pl } from "./words/pl";
import { ru } from "./words/ru";

/** How a page looks: the agent's phase, that it has no relay yet, or that it cannot be heard. */
export type Mood = Phase | "no_relay" | "lost";

export type Words = {
  language: string;
  mood: Record<Mood, string>;
  hint: Record<Mood, string>;
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
};

const known: Record<string, Words> = { en, pl, ru };

/** The first language of the list that is known, English if none is. */
export function wordsFor(languages: readonly string[]): Words {
  for (const language of languages) {
    const words = known[language.slice(0, 2).toLowerCase()];
    if (words) return words;
  }
  return en;
}
