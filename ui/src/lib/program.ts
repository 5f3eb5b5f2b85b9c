import type { Program } from "./protocol";
import { wishes, type Wish, type Words } from "./words";

/** The best name that is known; the Rust side picks the same. */
export function titleOf(who: Program, words: Words): string {
  return who.name || who.file?.split(/[\\/]/).pop() || who.origin || words.someProgram;
}

/** Where it comes from, as far as the system tells. */
export function originOf(who: Program, words: Words): string {
  const process = who.process == null ? undefined : words.process(who.process);
  return [who.file, process, who.origin].filter(Boolean).join(" · ");
}

/** A command in words; of a later version, its own word. */
export function wishOf(command: string, words: Words): string {
  const wish = wishes.find((known: Wish) => known === command);
  return wish ? words.wish[wish] : command;
}
