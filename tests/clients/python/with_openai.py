"""The official `openai` client."""

import base64
import functools
import json
import struct

import openai
import stage
from openai import OpenAI
from stage import KEY, MODEL, QUESTION, RELAY, TINY, case, case_by_name_only, refused, wish


@functools.cache
def client(host=RELAY, key=KEY):
    return OpenAI(base_url=f"{host}/v1", api_key=key)


def scripted(key=stage.SCRIPTED_KEY):
    return client(stage.SCRIPTED_RELAY, key)


def ask(text=QUESTION, at=None, **more):
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 16,
        **more,
    }
    return (at or client()).chat.completions.create(**asked)


def text_of(answer):
    return answer.choices[0].message.content


@case
def models_are_listed():
    names = [model.id for model in client().models.list()]
    assert names == [MODEL], names
    assert client().models.retrieve(MODEL).id == MODEL
    with refused(openai.NotFoundError, 404):
        client().models.retrieve("nobody:1b")


@case
def a_whole_answer_and_a_streamed_one_are_alike():
    whole = ask()
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    texts = [text for text in texts if text]
    assert len(texts) > 3, texts
    assert "".join(texts) == text_of(whole), (texts, whole)
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert len({chunk.id for chunk in chunks}) == 1, chunks
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason, chunks
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage), (chunks[-1], whole)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert all(chunk.choices for chunk in ask(stream=True)), "usage came unasked"


@case
def temperature_and_seed_decide_the_answer():
    def warm(seed):
        return text_of(ask(temperature=1.5, seed=seed))

    assert warm(7) == warm(7)
    assert len({warm(seed) for seed in range(3)}) > 1


@case
def a_limit_ends_the_answer_with_length():
    for limit in ("max_tokens", "max_completion_tokens"):
        answer = ask(**{"max_tokens": openai.omit, limit: 5})
        reason, usage = answer.choices[0].finish_reason, answer.usage
        assert (reason, usage.completion_tokens) == ("length", 5), answer


@case
def a_stop_word_ends_the_answer_before_it():
    stop, before = stage.a_stop_word_of(text_of(ask()))
    for stops in (stop, [stop]):
        answer = ask(stop=stops)
        assert (text_of(answer), answer.choices[0].finish_reason) == (before, "stop"), answer


@case
def a_schema_is_kept():
    schema = {"name": "answer", "schema": stage.SCHEMA, "strict": True}
    answer = ask(
        "Is fire warm?",
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert isinstance(json.loads(text_of(answer))["warm"], bool), answer


@case
def an_unknown_model_is_not_found():
    for stream in (False, True):
        with refused(openai.NotFoundError, 404, "model 'nobody:1b' not found"):
            ask(model="nobody:1b", stream=stream)


@case
def a_wrong_key_is_an_authentication_error():
    with refused(openai.AuthenticationError, 401, "key"):
        ask(at=client(key=stage.WRONG_KEY))


@case
def a_malformed_request_is_a_bad_request():
    with refused(openai.BadRequestError, 400, "messages"):
        ask(messages=[])
    with refused(openai.BadRequestError, 400, "f64"):
        ask(extra_body={"temperature": "hot"})


@case
def leaving_a_stream_stops_the_engine():
    stream = ask(stage.STORY, stream=True, max_tokens=2000)
    next(stream)
    stream.close()
    state = wish("newest_job")
    assert state == "cancelled", state


@case
def two_questions_at_once_are_both_answered():
    one, two = stage.at_once(lambda: text_of(ask()))
    assert one == two and isinstance(one, str) and one, (one, two)


@case
def without_an_agent_the_refusal_is_told():
    before = wish("requests")
    with refused(openai.InternalServerError, 503, "no worker is online"):
        ask(model=TINY, at=scripted(stage.LONELY_KEY))
    asked = wish("requests") - before
    assert asked == 1, f"asked {asked} times"


@case
def an_engine_that_dies_mid_stream_is_an_error():
    wish("play", scene="a_death", path="/api/chat")
    texts = []
    with refused(openai.APIError, words="engine"):
        for chunk in ask(model=TINY, at=scripted(), stream=True):
            texts.append(chunk.choices[0].delta.content)
    assert texts == ["Six times "], texts
    # Once whitespace was sent, the status is fixed, and the error is in the body.
    wish("play", scene="a_death", path="/api/chat", late=2)
    answer = ask(model=TINY, at=scripted())
    assert (answer.choices, answer.error["code"]) == (None, "engine_failed"), answer


@case
def a_tool_is_called_whole_and_streamed():
    wish("play", scene="a_tool_call", path="/api/chat")
    answer = ask(model=TINY, at=scripted(), tools=[stage.WEATHER]).choices[0]
    (whole,) = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls", answer

    wish("play", scene="a_tool_call", path="/api/chat")
    chunks = [chunk.choices[0] for chunk in ask(model=TINY, at=scripted(), stream=True, tools=[stage.WEATHER])]
    (streamed,) = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert (streamed.index, chunks[-1].finish_reason) == (0, "tool_calls"), chunks
    for call in (whole, streamed):
        assert (call.id, call.type, call.function.name) == ("call_ab12cd34", "function", "weather"), call
        assert json.loads(call.function.arguments) == stage.ARGUMENTS, call

    messages = [
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", "tool_calls": [whole.to_dict()]},
        {"role": "tool", "tool_call_id": whole.id, "content": "Snow."},
    ]
    assert text_of(ask(model=TINY, at=scripted(), messages=messages)) == "Snow."
    asked = wish("asked_of_the_engine", path="/api/chat")["messages"]
    assert asked[1]["tool_calls"][0]["function"]["arguments"] == stage.ARGUMENTS, asked
    assert asked[2]["tool_call_id"] == whole.id, asked


@case
def thoughts_are_kept_apart_from_the_answer():
    wish("play", scene="thoughts", path="/api/chat")
    message = ask(model=TINY, at=scripted(), reasoning_effort="high").choices[0].message
    assert (message.reasoning, message.content) == ("Six times seven.", "It is 42."), message
    assert wish("asked_of_the_engine", path="/api/chat")["think"] == "high"

    wish("play", scene="thoughts", path="/api/chat")
    deltas = [chunk.choices[0].delta for chunk in ask(model=TINY, at=scripted(), stream=True)]
    assert "".join(getattr(delta, "reasoning", "") for delta in deltas) == "Six times seven.", deltas
    assert "".join(delta.content or "" for delta in deltas) == "It is 42.", deltas


@case
def an_image_reaches_the_engine():
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{stage.PNG}"}},
    ]
    answer = ask(model=TINY, at=scripted(), messages=[{"role": "user", "content": parts}])
    assert text_of(answer) == "What is it?", answer
    asked = wish("asked_of_the_engine", path="/api/chat")
    assert asked["messages"][0]["images"] == [stage.PNG], asked


@case
def a_long_silence_is_survived_whole_and_streamed():
    wish("play", scene="words", path="/api/chat", late=2)
    whole = text_of(ask(model=TINY, at=scripted()))
    assert whole == "Six times seven.", whole
    wish("play", scene="words", path="/api/chat", late=2)
    texts = [part.choices[0].delta.content or "" for part in ask(model=TINY, at=scripted(), stream=True)]
    assert "".join(texts) == "Six times seven.", texts


@case
def a_text_is_continued_whole_and_streamed():
    def go_on(**more):
        asked = {"model": MODEL, "prompt": QUESTION, "temperature": 0, "max_tokens": 8, **more}
        return client().completions.create(**asked)

    whole = go_on()
    chunks = list(go_on(stream=True, stream_options={"include_usage": True}))
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage), (chunks, whole)
    text = "".join(chunk.choices[0].text for chunk in chunks[:-1])
    assert text == whole.choices[0].text and text, (text, whole)
    reasons = {chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason}
    assert reasons == {"length"}, (chunks, whole)


@case
def texts_become_vectors():
    # By default the client requests base64 and decodes it.
    for how in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = scripted().embeddings.create(model=TINY, input="one", **how)
        vector = answer.data[0].embedding
        if how == {"encoding_format": "base64"}:
            vector = struct.unpack("<2f", base64.b64decode(vector))
        assert [round(number, 6) for number in vector] == [0.6, 0.8], (how, answer)
        assert answer.usage.prompt_tokens == 2, answer


@case
def an_engine_without_embeddings_refuses():
    with refused(openai.InternalServerError, 501, "does not support embeddings"):
        client().embeddings.create(model=MODEL, input="one")
    wish("play", scene="no_vectors", path="/api/embed")
    before = wish("requests")
    with refused(openai.InternalServerError, 501, "does not support embeddings"):
        scripted().embeddings.create(model=TINY, input="one")
    times = wish("requests") - before
    assert times == 1, f"asked {times} times for what can never be"


def respond(at=None, **more):
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 16, **more}
    return (at or client()).responses.create(**asked)


@case
def a_response_is_given_whole_and_streamed():
    whole = respond()
    assert whole.output_text == text_of(ask()), whole
    events = list(respond(stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created", kinds
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text and len(deltas) > 3, deltas
    last = events[-1].response
    assert (last.status, last.output_text) == (whole.status, whole.output_text), last
    assert last.usage.output_tokens == whole.usage.output_tokens == 16, (last, whole)
    assert (last.status, last.incomplete_details.reason) == ("incomplete", "max_output_tokens"), last
    with refused(openai.BadRequestError, 400, "previous_response_id"):
        respond(previous_response_id=whole.id)


@case
def a_response_that_fails_says_so():
    wish("play", scene="a_death", path="/api/chat")
    kinds = []
    with refused(openai.APIError, words="engine"):
        for event in respond(scripted(), model=TINY, stream=True):
            kinds.append(event.type)
    assert kinds[-1] == "response.failed", kinds


@case
def a_response_calls_a_tool():
    function = {"type": "function", "strict": False, **stage.WEATHER["function"]}
    for stream in (False, True):
        wish("play", scene="a_tool_call", path="/api/chat")
        answer = respond(scripted(), model=TINY, tools=[function], stream=stream)
        if stream:
            answer = list(answer)[-1].response
        (call,) = answer.output
        assert (call.type, call.name) == ("function_call", "weather"), answer
        assert json.loads(call.arguments) == stage.ARGUMENTS, answer


@case
def a_key_in_the_address_is_enough():
    at = OpenAI(base_url=f"{RELAY}/k/{KEY}/v1", api_key="none")
    assert text_of(ask(at=at, max_tokens=4)), "nothing was said"
    with refused(openai.AuthenticationError, 401):
        OpenAI(base_url=f"{RELAY}/k/{stage.WRONG_KEY}/v1", api_key="none").models.list()


def batch_of(endpoint, bodies):
    lines = [
        {"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": {"model": TINY, **body}}
        for number, body in enumerate(bodies)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    given = scripted().files.create(file=("batch.jsonl", text.encode()), purpose="batch")
    assert given.id in [file.id for file in scripted().files.list()], given
    return scripted().batches.create(
        input_file_id=given.id, endpoint=endpoint, completion_window="24h"
    )


def ended(batch):
    ends = ("completed", "failed", "expired", "cancelled")
    return stage.until(
        lambda: scripted().batches.retrieve(batch.id), lambda batch: batch.status in ends
    )


def answers_of(batch):
    batch = ended(batch)
    assert batch.status == "completed", batch
    output = scripted().files.content(batch.output_file_id).text
    answers = {line["custom_id"]: line["response"] for line in map(json.loads, output.splitlines())}
    assert len(answers) == batch.request_counts.completed, batch
    assert all(answer["status_code"] == 200 for answer in answers.values()), answers
    return [answers[f"line-{number}"]["body"] for number in range(len(answers))]


@case
def a_batch_is_answered():
    asked = [f"Say {number}." for number in range(3)]
    chats = [{"messages": [{"role": "user", "content": text}]} for text in asked]
    answers = answers_of(batch_of("/v1/chat/completions", chats))
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == asked, answers
    answers = answers_of(batch_of("/v1/completions", [{"prompt": text} for text in asked]))
    assert [answer["choices"][0]["text"] for answer in answers] == asked, answers
    answers = answers_of(batch_of("/v1/embeddings", [{"input": text} for text in asked]))
    assert [answer["data"][0]["embedding"] for answer in answers] == [[0.6, 0.8]] * 3, answers

    wish("play", scene="half", path="/api/chat")
    batch = batch_of("/v1/chat/completions", chats)
    batch = scripted().batches.cancel(batch.id)
    assert batch.status in ("cancelling", "cancelled"), batch
    assert ended(batch).status == "cancelled", batch
    assert batch.id in [listed.id for listed in scripted().batches.list()], batch


@case_by_name_only
def a_killed_agent_is_an_error():
    texts = []
    with refused(openai.APIError, words="lost"):
        for part in ask(model=TINY, at=scripted(), stream=True):
            if part.choices[0].delta.content:
                texts.append(part.choices[0].delta.content)
                wish("lose_the_agent")
    assert texts == ["Six times "], texts


stage.main()
