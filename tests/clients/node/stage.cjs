// Shared by the scripts: the cases, their report, and requests to the stage.
"use strict";
const assert = require("node:assert/strict");
const { createInterface } = require("node:readline");

const { RELAY, RELAY_KEY: KEY, MODEL, SCRIPTED_RELAY, SCRIPTED_KEY, LONELY_KEY } = process.env;
const QUESTION = "Count from one to ten in words.";
// The answer is long enough that it is still being written when the client disconnects.
const STORY = "Write a very long story about a fire that never goes out.";
const SCHEMA = {
  type: "object",
  properties: { warm: { type: "boolean" } },
  required: ["warm"],
  additionalProperties: false,
};
const WEATHER = {
  name: "weather",
  description: "The weather of the coming days.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer" } },
    required: ["city", "days"],
  },
};
const ARGUMENTS = { city: "Kraków", days: 3 };
// One white pixel.
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII=";

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function wish(what, more = {}) {
  say({ do: what, ...more });
  const answer = JSON.parse((await answers.next()).value);
  assert(!("error" in answer), answer.error);
  return answer.ok;
}

/** Checks that the call fails with an error that has these fields and words. */
async function refused(call, kind, fields, words) {
  let result;
  try {
    result = await call();
  } catch (error) {
    assert(error instanceof kind, `not a ${kind.name} but ${error.constructor.name}: ${error}`);
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, `${name} of ${error}`);
    assert(error.message.includes(words), `no ${JSON.stringify(words)} in: ${error.message}`);
    return error;
  }
  assert.fail(`no ${kind.name} was thrown, but this returned: ${JSON.stringify(result)}`);
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

/** Polls for the expected answer, because there is no event. */
async function until(ask, isThere) {
  let answer;
  for (let n = 0; n < 10_000; n++) {
    answer = await ask();
    if (isThere(answer)) return answer;
  }
  assert.fail(`never as it should be: ${JSON.stringify(answer)}`);
}

/** A stop word from the middle of an answer, and the part of the answer before it. */
function aStopWordOf(answer) {
  const words = answer.split(/\s+/);
  assert(words.length > 3, answer);
  return [words[2], answer.slice(0, answer.indexOf(words[2]))];
}

async function main(cases, casesByNameOnly = {}) {
  const named = process.argv.slice(2);
  const names = named.length ? named : Object.keys(cases);
  for (const name of names) {
    try {
      await { ...cases, ...casesByNameOnly }[name]();
      say({ case: name, ok: true });
    } catch (error) {
      const at = /with_\w+\.cjs:\d+/.exec(error.stack ?? "");
      say({ case: name, ok: false, why: `${error.name}: ${error.message} (${at})` });
    }
  }
  process.stdin.destroy();
}

module.exports = {
  RELAY, KEY, MODEL, SCRIPTED_RELAY, SCRIPTED_KEY, LONELY_KEY, QUESTION, STORY, SCHEMA, WEATHER, ARGUMENTS, PNG,
  WRONG_KEY: "hearth_nobody_has_this_key", TINY: "tiny", wish, refused, all, until, aStopWordOf, main,
};
