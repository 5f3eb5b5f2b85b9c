// The official `openai` client.
"use strict";
const assert = require("node:assert/strict");
const OpenAI = require("openai");
const stage = require("./stage.cjs");
const { KEY, MODEL, QUESTION, RELAY, TINY, all, refused, wish } = stage;

const client = (host = RELAY, apiKey = KEY) => new OpenAI({ baseURL: `${host}/v1`, apiKey });
const scripted = (key = stage.SCRIPTED_KEY) => client(stage.SCRIPTED_RELAY, key);
const TOOLS = [{ type: "function", function: stage.WEATHER }];

function ask({ at = client(), text = QUESTION, ...more } = {}) {
  const messages = [{ role: "user", content: text }];
  return at.chat.completions.create({ model: MODEL, messages, temperature: 0, max_tokens: 16, ...more });
}
const textOf = (answer) => answer.choices[0].message.content;

stage.main({
  async models_are_listed() {
    const models = await all(client().models.list());
    assert.deepEqual(models.map((model) => model.id), [MODEL]);
    assert.equal((await client().models.retrieve(MODEL)).id, MODEL);
    await refused(() => client().models.retrieve("nobody:1b"), OpenAI.NotFoundError, { status: 404 }, "");
  },

  async a_whole_answer_and_a_streamed_one_are_alike() {
    const whole = await ask();
    const chunks = await all(await ask({ stream: true, stream_options: { include_usage: true } }));
    const usage = chunks.pop();
    const texts = chunks.map((chunk) => chunk.choices[0].delta.content).filter(Boolean);
    assert(texts.length > 3, JSON.stringify(texts));
    assert.equal(texts.join(""), textOf(whole));
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.equal(chunks.at(-1).choices[0].finish_reason, whole.choices[0].finish_reason);
    assert.deepEqual([usage.choices, usage.usage], [[], whole.usage]);
  },

  async temperature_and_seed_decide_the_answer() {
    const warm = async (seed) => textOf(await ask({ temperature: 1.5, seed }));
    assert.equal(await warm(7), await warm(7));
    assert(new Set([await warm(0), await warm(1), await warm(2)]).size > 1);
  },

  async a_limit_ends_the_answer_with_length() {
    for (const limit of [{ max_tokens: 5 }, { max_tokens: undefined, max_completion_tokens: 5 }]) {
      const answer = await ask(limit);
      assert.deepEqual([answer.choices[0].finish_reason, answer.usage.completion_tokens], ["length", 5]);
    }
  },

  async a_stop_word_ends_the_answer_before_it() {
    const [stop, before] = stage.aStopWordOf(textOf(await ask()));
    const answer = await ask({ stop });
    assert.deepEqual([textOf(answer), answer.choices[0].finish_reason], [before, "stop"]);
  },

  async a_schema_is_kept() {
    const json_schema = { name: "answer", schema: stage.SCHEMA, strict: true };
    const answer = await ask({
      text: "Is fire warm?", max_tokens: 64, response_format: { type: "json_schema", json_schema },
    });
    assert.equal(typeof JSON.parse(textOf(answer)).warm, "boolean");
  },

  async an_unknown_model_is_not_found() {
    for (const stream of [false, true]) {
      const call = () => ask({ model: "nobody:1b", stream });
      await refused(call, OpenAI.NotFoundError, { status: 404 }, "model 'nobody:1b' not found");
    }
  },

  async a_wrong_key_is_an_authentication_error() {
    const wrong = { at: client(RELAY, stage.WRONG_KEY) };
    await refused(() => ask(wrong), OpenAI.AuthenticationError, { status: 401 }, "key");
  },

  async a_malformed_request_is_a_bad_request() {
    await refused(() => ask({ messages: [] }), OpenAI.BadRequestError, { status: 400 }, "messages");
    await refused(() => ask({ temperature: "hot" }), OpenAI.BadRequestError, { status: 400 }, "f64");
  },

  async leaving_a_stream_stops_the_engine() {
    const stream = await ask({ text: stage.STORY, stream: true, max_tokens: 2000 });
    for await (const _ of stream) break;
    assert.equal(await wish("newest_job"), "cancelled");
  },

  async two_questions_at_once_are_both_answered() {
    const [one, two] = (await Promise.all([ask(), ask()])).map(textOf);
    assert.equal(one, two);
    assert(one);
  },

  async without_an_agent_the_refusal_is_told() {
    const before = await wish("requests");
    const call = () => ask({ model: TINY, at: scripted(stage.LONELY_KEY) });
    await refused(call, OpenAI.InternalServerError, { status: 503 }, "no worker is online");
    assert.equal((await wish("requests")) - before, 1);
  },

  async an_engine_that_dies_mid_stream_is_an_error() {
    await wish("play", { scene: "a_death", path: "/api/chat" });
    const texts = [];
    await refused(async () => {
      const stream = await ask({ model: TINY, at: scripted(), stream: true });
      for await (const chunk of stream) texts.push(chunk.choices[0].delta.content);
    }, OpenAI.APIError, {}, "engine");
    assert.deepEqual(texts, ["Six times "]);
  },

  async a_tool_is_called_whole_and_streamed() {
    await wish("play", { scene: "a_tool_call", path: "/api/chat" });
    const answer = (await ask({ model: TINY, at: scripted(), tools: TOOLS })).choices[0];
    assert.equal(answer.finish_reason, "tool_calls");
    await wish("play", { scene: "a_tool_call", path: "/api/chat" });
    const streamed = (await all(await ask({ model: TINY, at: scripted(), stream: true, tools: TOOLS })))
      .map((chunk) => chunk.choices[0]);
    assert.equal(streamed.at(-1).finish_reason, "tool_calls");
    const calls = [answer.message.tool_calls, streamed.flatMap((chunk) => chunk.delta.tool_calls ?? [])];
    for (const [call, ...more] of calls) {
      assert.equal(more.length, 0);
      assert.deepEqual([call.id, call.function.name], ["call_ab12cd34", "weather"]);
      assert.deepEqual(JSON.parse(call.function.arguments), stage.ARGUMENTS);
    }
  },

  async thoughts_are_kept_apart_from_the_answer() {
    await wish("play", { scene: "thoughts", path: "/api/chat" });
    const { message } = (await ask({ model: TINY, at: scripted(), reasoning_effort: "high" })).choices[0];
    assert.deepEqual([message.reasoning, message.content], ["Six times seven.", "It is 42."]);
    await wish("play", { scene: "thoughts", path: "/api/chat" });
    const chunks = await all(await ask({ model: TINY, at: scripted(), stream: true }));
    const deltas = chunks.map((chunk) => chunk.choices[0].delta);
    assert.equal(deltas.map((delta) => delta.reasoning ?? "").join(""), "Six times seven.");
    assert.equal(deltas.map((delta) => delta.content ?? "").join(""), "It is 42.");
  },

  async an_image_reaches_the_engine() {
    const url = `data:image/png;base64,${stage.PNG}`;
    const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url } }];
    const answer = await ask({ model: TINY, at: scripted(), messages: [{ role: "user", content }] });
    assert.equal(textOf(answer), "What is it?");
    const asked = await wish("asked_of_the_engine", { path: "/api/chat" });
    assert.deepEqual(asked.messages[0].images, [stage.PNG]);
  },

  async a_long_silence_is_survived_whole_and_streamed() {
    await wish("play", { scene: "words", path: "/api/chat", late: 2 });
    assert.equal(textOf(await ask({ model: TINY, at: scripted() })), "Six times seven.");
    await wish("play", { scene: "words", path: "/api/chat", late: 2 });
    const chunks = await all(await ask({ model: TINY, at: scripted(), stream: true }));
    const texts = chunks.map((chunk) => chunk.choices[0].delta.content ?? "");
    assert.equal(texts.join(""), "Six times seven.");
  },

  async texts_become_vectors() {
    const answer = await scripted().embeddings.create({ model: TINY, input: "one" });
    assert.deepEqual(answer.data[0].embedding.map((number) => number.toFixed(6)), ["0.600000", "0.800000"]);
  },

  async an_engine_without_embeddings_refuses() {
    const call = () => client().embeddings.create({ model: MODEL, input: "one" });
    await refused(call, OpenAI.InternalServerError, { status: 501 }, "does not support embeddings");
  },

  async a_response_is_given_whole_and_streamed() {
    const asked = { model: MODEL, input: QUESTION, temperature: 0, max_output_tokens: 16 };
    const whole = await client().responses.create(asked);
    assert.equal(whole.output_text, textOf(await ask()));
    const events = await all(await client().responses.create({ ...asked, stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    assert.equal(deltas.join(""), whole.output_text);
    assert.equal(events.at(-1).type, "response.incomplete");
    assert.equal(events.at(-1).response.incomplete_details.reason, "max_output_tokens");
  },

  async a_key_in_the_address_is_enough() {
    const at = client(`${RELAY}/k/${KEY}`, "none");
    assert(textOf(await ask({ at, max_tokens: 4 })));
  },
}, {
  async a_killed_agent_is_an_error() {
    const texts = [];
    await refused(async () => {
      for await (const part of await ask({ model: TINY, at: scripted(), stream: true })) {
        if (!part.choices[0].delta.content) continue;
        texts.push(part.choices[0].delta.content);
        await wish("lose_the_agent");
      }
    }, OpenAI.APIError, {}, "lost");
    assert.deepEqual(texts, ["Six times "]);
  },
});
