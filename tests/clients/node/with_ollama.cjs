// The official `ollama` client.
"use strict";
const assert = require("node:assert/strict");
const { Ollama } = require("ollama");
const stage = require("./stage.cjs");
const { KEY, MODEL, QUESTION, RELAY, TINY, all, refused, wish } = stage;

const client = (host = RELAY, key = KEY) =>
  new Ollama({ host, headers: { Authorization: `Bearer ${key}` } });
const scripted = (key = stage.SCRIPTED_KEY) => client(stage.SCRIPTED_RELAY, key);

function ask({ at = client(), text = QUESTION, options, ...more } = {}) {
  const messages = [{ role: "user", content: text }];
  return at.chat({ model: MODEL, messages, options: { temperature: 0, num_predict: 16, ...options }, ...more });
}

stage.main({
  async models_are_listed() {
    const { models } = await client().list();
    assert.deepEqual(models.map((model) => model.model), [MODEL]);
  },

  async a_whole_answer_and_a_streamed_one_are_alike() {
    const whole = await ask();
    const parts = await all(await ask({ stream: true }));
    const texts = parts.map((part) => part.message.content).filter(Boolean);
    assert(texts.length > 3, JSON.stringify(texts));
    assert.equal(texts.join(""), whole.message.content);
    assert.deepEqual(parts.filter((part) => part.done), [parts.at(-1)]);
    assert.equal(parts.at(-1).eval_count, whole.eval_count);
  },

  async temperature_and_seed_decide_the_answer() {
    const warm = async (seed) => (await ask({ options: { temperature: 1.5, seed } })).message.content;
    assert.equal(await warm(7), await warm(7));
    assert(new Set([await warm(0), await warm(1), await warm(2)]).size > 1);
  },

  async a_limit_ends_the_answer_with_length() {
    const answer = await ask({ options: { num_predict: 5 } });
    assert.deepEqual([answer.done_reason, answer.eval_count], ["length", 5]);
  },

  async a_stop_word_ends_the_answer_before_it() {
    const [stop, before] = stage.aStopWordOf((await ask()).message.content);
    const answer = await ask({ options: { stop: [stop] } });
    assert.deepEqual([answer.message.content, answer.done_reason], [before, "stop"]);
  },

  async a_schema_is_kept() {
    const answer = await ask({ text: "Is fire warm?", format: stage.SCHEMA, options: { num_predict: 64 } });
    assert.equal(typeof JSON.parse(answer.message.content).warm, "boolean");
  },

  async an_unknown_model_is_not_found() {
    for (const stream of [false, true]) {
      const call = () => ask({ model: "nobody:1b", stream });
      await refused(call, Error, { name: "ResponseError", status_code: 404 }, "model 'nobody:1b' not found");
    }
  },

  async a_wrong_key_is_an_authentication_error() {
    const wrong = { at: client(RELAY, stage.WRONG_KEY) };
    await refused(() => ask(wrong), Error, { name: "ResponseError", status_code: 401 }, "key");
  },

  async a_malformed_request_is_a_bad_request() {
    const call = () => ask({ keep_alive: "soon" });
    await refused(call, Error, { name: "ResponseError", status_code: 400 }, "invalid duration");
  },

  async leaving_a_stream_stops_the_engine() {
    const stream = await ask({ text: stage.STORY, stream: true, options: { num_predict: 2000 } });
    await refused(async () => {
      for await (const _ of stream) stream.abort();
    }, Error, { name: "AbortError" }, "abort");
    assert.equal(await wish("newest_job"), "cancelled");
  },

  async two_questions_at_once_are_both_answered() {
    const [one, two] = await Promise.all([ask(), ask()]);
    assert.equal(one.message.content, two.message.content);
    assert(one.message.content);
  },

  async without_an_agent_the_refusal_is_told() {
    const before = await wish("requests");
    const call = () => ask({ model: TINY, at: scripted(stage.LONELY_KEY) });
    await refused(call, Error, { name: "ResponseError", status_code: 503 }, "no worker is online");
    assert.equal((await wish("requests")) - before, 1);
  },

  async an_engine_that_dies_mid_stream_is_an_error() {
    await wish("play", { scene: "a_death", path: "/api/chat" });
    const texts = [];
    await refused(async () => {
      const stream = await ask({ model: TINY, at: scripted(), stream: true });
      for await (const part of stream) texts.push(part.message.content);
    }, Error, {}, "engine");
    assert.deepEqual(texts, ["Six times "]);
  },

  async a_tool_is_called_whole_and_streamed() {
    for (const stream of [false, true]) {
      await wish("play", { scene: "a_tool_call", path: "/api/chat", whole: !stream });
      const tools = [{ type: "function", function: stage.WEATHER }];
      const answer = await ask({ model: TINY, at: scripted(), stream, tools });
      const parts = stream ? await all(answer) : [answer];
      const calls = parts.flatMap((part) => part.message.tool_calls ?? []).map((call) => call.function);
      assert.deepEqual(calls.map((call) => [call.name, call.arguments]), [["weather", stage.ARGUMENTS]]);
      const asked = await wish("asked_of_the_engine", { path: "/api/chat" });
      assert.equal(asked.tools[0].function.name, "weather");
    }
  },

  async thoughts_are_kept_apart_from_the_answer() {
    for (const stream of [false, true]) {
      await wish("play", { scene: "thoughts", path: "/api/chat", whole: !stream });
      const answer = await ask({ model: TINY, at: scripted(), stream, think: true });
      const parts = stream ? await all(answer) : [answer];
      assert.equal(parts.map((part) => part.message.thinking ?? "").join(""), "Six times seven.");
      assert.equal(parts.map((part) => part.message.content).join(""), "It is 42.");
    }
  },

  async an_image_reaches_the_engine() {
    const messages = [{ role: "user", content: "What is it?", images: [stage.PNG] }];
    const answer = await scripted().chat({ model: TINY, messages });
    assert.equal(answer.message.content, "What is it?");
    const asked = await wish("asked_of_the_engine", { path: "/api/chat" });
    assert.deepEqual(asked.messages[0].images, [stage.PNG]);
  },

  async a_long_silence_is_survived_whole_and_streamed() {
    await wish("play", { scene: "words", path: "/api/chat", whole: true, late: 2 });
    assert.equal((await ask({ model: TINY, at: scripted() })).message.content, "Six times seven.");
    await wish("play", { scene: "words", path: "/api/chat", late: 2 });
    const parts = await all(await ask({ model: TINY, at: scripted(), stream: true }));
    const texts = parts.map((part) => part.message.content);
    assert.equal(texts.join(""), "Six times seven.");
  },

  async texts_become_vectors() {
    const answer = await scripted().embed({ model: TINY, input: ["one"] });
    assert.deepEqual(answer.embeddings, [[0.6, 0.8]]);
  },

  async an_engine_without_embeddings_refuses() {
    const call = () => client().embed({ model: MODEL, input: "one" });
    await refused(call, Error, { name: "ResponseError", status_code: 501 }, "does not support embeddings");
  },

  async a_key_in_the_address_is_enough() {
    const at = new Ollama({ host: `${RELAY}/k/${KEY}` });
    assert.deepEqual((await at.list()).models.map((model) => model.model), [MODEL]);
    assert((await ask({ at, options: { num_predict: 4 } })).message.content);
  },

  async a_model_is_shown() {
    const shown = await client().show({ model: MODEL });
    assert.deepEqual([shown.details.family, shown.details.format], ["llama", "gguf"]);
    assert(shown.capabilities.includes("completion"));
    assert.equal(shown.model_info["general.architecture"], "llama");
    assert(shown.model_info["llama.context_length"] > 0);
  },

  async a_model_is_loaded_without_a_question() {
    const answer = await client().chat({ model: MODEL, messages: [] });
    assert.deepEqual([answer.message.content, answer.done_reason], ["", "load"]);
    const running = () => client().ps();
    const { models } = await stage.until(running, (told) => told.models.length === 1);
    assert.equal(models[0].model, MODEL);
    assert(models[0].expires_at && models[0].context_length > 0);
    const left = await client().generate({ model: MODEL, prompt: "", keep_alive: 0 });
    assert.deepEqual([left.response, left.done_reason], ["", "unload"]);
    await stage.until(running, (told) => told.models.length === 0);
  },
}, {
  async a_killed_agent_is_an_error() {
    const texts = [];
    await refused(async () => {
      for await (const part of await ask({ model: TINY, at: scripted(), stream: true })) {
        if (!part.message.content) continue;
        texts.push(part.message.content);
        await wish("lose_the_agent");
      }
    }, Error, {}, "lost");
    assert.deepEqual(texts, ["Six times "]);
  },
});
