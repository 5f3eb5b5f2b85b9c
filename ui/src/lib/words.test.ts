import { expect, test } from "vitest";

import { wordsFor } from "./words";
import { en } from "./words/en";
import { pl } from "./words/pl";
import { ru } from "./words/ru";

test("the first known language wins, English is what remains", () => {
  expect(wordsFor(["de-DE", "pl-PL", "en"]).language).toBe("pl");
  expect(wordsFor(["ru"]).language).toBe("ru");
  expect(wordsFor([]).language).toBe("en");
});

/** All texts of a language, each with its name. */
function texts(words: object, path = ""): [string, string][] {
  return Object.entries(words).flatMap(([key, value]) => {
    const at = path + key;
    if (typeof value === "object") return texts(value as object, `${at}.`);
    return [[at, typeof value === "function" ? (value as (x: string) => string)("x") : String(value)]];
  });
}

test("only texts that are shown with code have backticks, in pairs", () => {
  for (const words of [en, pl, ru]) {
    const marked = texts(words).filter(([, text]) => text.includes("`"));
    expect(marked.map(([at]) => at)).toEqual(["noRelayHelp", "relayHelp", "engineHelp"]);
    for (const [at, text] of marked) expect(text.split("`").length % 2, `${words.language}: ${at}`).toBe(1);
  }
});

test("no text is left untranslated", () => {
  const same = ["language", "carrier.websocket"];
  const english = new Map(texts(en));
  for (const other of [pl, ru]) {
    for (const [at, text] of texts(other)) {
      if (!same.includes(at)) expect(text, `${other.language}: ${at}`).not.toBe(english.get(at));
      expect(text.trim(), at).not.toBe("");
    }
  }
});
