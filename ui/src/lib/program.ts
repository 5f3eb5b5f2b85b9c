import type { Program } from "./protocol";
import { wishes, type Wish, type Words } from "./words";

/** The best known name; the Rust side chooses the same. */
export function titleOf(who: Program, words: Words): string {
  return who.name || who.file?.split(/[\\/]/).pop() || who.origin || words.someProgram;
}

/** The origin of a program, as far as the system tells. */
export function originOf(who: Program, words: Words): string {
  const process = who.process == null ? undefined : words.process(who.process);
  return [who.file, process, who.origin].filter(Boolean).join(" · ");
}

/** A command in words; an unknown command as it is. */
export function wishOf(command: string, words: Words): string {
  const wish = wishes.find((known: Wish) => known === command);
  return wish ? words.wish[wish] : command;
}
