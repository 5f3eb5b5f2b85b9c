// Vercel's `ai` with `@ai-sdk/openai-compatible`.
"use strict";
const assert = require("node:assert/strict");
const { APICallError, RetryError, Output, embed, generateText, jsonSchema, streamText, tool } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const stage = require("./stage.cjs");
const { KEY, MODEL, QUESTION, RELAY, TINY, all, refused, wish } = stage;

const client = (host = RELAY, apiKey = KEY) =>
  createOpenAICompatible({
    name: "hearth", baseURL: `${host}/v1`, apiKey, includeUsage: true, supportsStructuredOutputs: true,
  });
const scripted = (key = stage.SCRIPTED_KEY) => client(stage.SCRIPTED_RELAY, key)(TINY);
const ASKED = { prompt: QUESTION, temperature: 0, maxOutputTokens: 16 };
const ask = (more = {}) => generateText({ model: client()(MODEL), ...ASKED, ...more });
const stream = (more = {}) => streamText({ model: client()(MODEL), ...ASKED, onError() {}, ...more });
const TOOLS = {
  weather: tool({ description: stage.WEATHER.description, inputSchema: jsonSchema(stage.WEATHER.parameters) }),
};

stage.main({
  async a_whole_answer_and_a_streamed_one_are_alike() {
    const whole = await ask();
    const streamed = stream();
    const texts = await all(streamed.textStream);
    assert(texts.length > 3, JSON.stringify(texts));
    assert.equal(texts.join(""), whole.text);
    assert.equal(await streamed.finishReason, whole.finishReason);
    const usage = await streamed.usage;
    assert(usage.outputTokens > 0);
    assert.deepEqual([usage.inputTokens, usage.outputTokens], [whole.usage.inputTokens, whole.usage.outputTokens]);
  },

  async temperature_and_seed_decide_the_answer() {
    const warm = async (seed) => (await ask({ temperature: 1.5, seed })).text;
    assert.equal(await warm(7), await warm(7));
    assert(new Set([await warm(0), await warm(1), await warm(2)]).size > 1);
  },

  async a_limit_ends_the_answer_with_length() {
    const answer = await ask({ maxOutputTokens: 5 });
    assert.deepEqual([answer.finishReason, answer.usage.outputTokens], ["length", 5]);
  },

  async a_stop_word_ends_the_answer_before_it() {
    const [stop, before] = stage.aStopWordOf((await ask()).text);
    const answer = await ask({ stopSequences: [stop] });
    assert.deepEqual([answer.text, answer.finishReason], [before, "stop"]);
  },

  async a_schema_is_kept() {
    const output = Output.object({ schema: jsonSchema(stage.SCHEMA) });
    const answer = await ask({ prompt: "Is fire warm?", maxOutputTokens: 64, output });
    assert.equal(typeof answer.output.warm, "boolean");
  },

  async an_unknown_model_is_not_found() {
    const call = () => ask({ model: client()("nobody:1b") });
    await refused(call, APICallError, { statusCode: 404 }, "model 'nobody:1b' not found");
    const parts = await all(stream({ model: client()("nobody:1b") }).fullStream);
    assert.equal(parts.find((part) => part.type === "error").error.statusCode, 404);
  },

  async a_wrong_key_is_an_authentication_error() {
    const model = client(RELAY, stage.WRONG_KEY)(MODEL);
    await refused(() => ask({ model }), APICallError, { statusCode: 401 }, "key");
  },

  async a_malformed_request_is_a_bad_request() {
    await refused(() => ask({ maxOutputTokens: 1, seed: 0.5 }), Error, {}, "seed");
    const providerOptions = { hearth: { top_logprobs: "many" } };
    await refused(() => ask({ providerOptions }), APICallError, { statusCode: 400 }, "u32");
  },

  async leaving_a_stream_stops_the_engine() {
    const left = new AbortController();
    const streamed = stream({ prompt: stage.STORY, maxOutputTokens: 2000, abortSignal: left.signal });
    const parts = [];
    for await (const part of streamed.fullStream) {
      parts.push(part.type);
      if (part.type === "text-delta") left.abort();
    }
    assert.equal(parts.at(-1), "abort");
    assert.equal(await wish("newest_job"), "cancelled");
  },

  async two_questions_at_once_are_both_answered() {
    const [one, two] = await Promise.all([ask(), ask()]);
    assert.equal(one.text, two.text);
    assert(one.text);
  },

  // This client ignores `x-should-retry` and repeats a request twice after a 503.
  async without_an_agent_the_refusal_is_told() {
    const before = await wish("requests");
    const call = () => ask({ model: scripted(stage.LONELY_KEY) });
    await refused(call, RetryError, { reason: "maxRetriesExceeded" }, "no worker is online");
    assert.equal((await wish("requests")) - before, 3);
  },

  async an_engine_that_dies_mid_stream_is_an_error() {
    await wish("play", { scene: "a_death", path: "/api/chat" });
    const parts = await all(stream({ model: scripted() }).fullStream);
    assert.deepEqual(parts.filter((part) => part.type === "text-delta").map((part) => part.text), ["Six times "]);
    const failed = parts.find((part) => part.type === "error");
    assert.match(String(failed?.error?.message ?? failed?.error), /engine/);
  },

  async a_tool_is_called_whole_and_streamed() {
    await wish("play", { scene: "a_tool_call", path: "/api/chat" });
    const answer = await ask({ model: scripted(), tools: TOOLS });
    await wish("play", { scene: "a_tool_call", path: "/api/chat" });
    const streamed = stream({ model: scripted(), tools: TOOLS });
    await streamed.consumeStream();
    for (const result of [answer, streamed]) {
      assert.equal(await result.finishReason, "tool-calls");
      const [call, ...more] = await result.toolCalls;
      assert.equal(more.length, 0);
      assert.deepEqual([call.toolCallId, call.toolName, call.input], ["call_ab12cd34", "weather", stage.ARGUMENTS]);
    }
  },

  async thoughts_are_kept_apart_from_the_answer() {
    await wish("play", { scene: "thoughts", path: "/api/chat" });
    const answer = await ask({ model: scripted() });
    assert.deepEqual([answer.reasoningText, answer.text], ["Six times seven.", "It is 42."]);
    await wish("play", { scene: "thoughts", path: "/api/chat" });
    const streamed = stream({ model: scripted() });
    assert.equal((await all(streamed.textStream)).join(""), "It is 42.");
    assert.equal(await streamed.reasoningText, "Six times seven.");
  },

  async an_image_reaches_the_engine() {
    const content = [{ type: "text", text: "What is it?" }, { type: "image", image: stage.PNG, mediaType: "image/png" }];
    const answer = await ask({ model: scripted(), prompt: undefined, messages: [{ role: "user", content }] });
    assert.equal(answer.text, "What is it?");
    const asked = await wish("asked_of_the_engine", { path: "/api/chat" });
    assert.deepEqual(asked.messages[0].images, [stage.PNG]);
  },

  async a_long_silence_is_survived_whole_and_streamed() {
    await wish("play", { scene: "words", path: "/api/chat", late: 2 });
    assert.equal((await ask({ model: scripted() })).text, "Six times seven.");
    await wish("play", { scene: "words", path: "/api/chat", late: 2 });
    const texts = await all(stream({ model: scripted() }).textStream);
    assert.equal(texts.join(""), "Six times seven.");
  },

  async texts_become_vectors() {
    const model = client(stage.SCRIPTED_RELAY, stage.SCRIPTED_KEY).textEmbeddingModel(TINY);
    const { embedding } = await embed({ model, value: "one" });
    assert.deepEqual(embedding.map((number) => number.toFixed(6)), ["0.600000", "0.800000"]);
  },
}, {
  async a_killed_agent_is_an_error() {
    const texts = [];
    let failed;
    for await (const part of stream({ model: scripted() }).fullStream) {
      if (part.type === "error") failed = part.error;
      if (part.type !== "text-delta") continue;
      texts.push(part.text);
      await wish("lose_the_agent");
    }
    assert.match(String(failed?.message ?? failed), /lost/);
    assert.deepEqual(texts, ["Six times "]);
  },
});
