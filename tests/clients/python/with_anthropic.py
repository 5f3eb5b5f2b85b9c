"""The official `anthropic` client."""

import functools
import json

import anthropic
import stage
from anthropic import Anthropic
from stage import KEY, MODEL, QUESTION, RELAY, TINY, case, case_by_name_only, refused, wish

TOOL = {
    "name": "weather",
    "description": stage.WEATHER["function"]["description"],
    "input_schema": stage.WEATHER["function"]["parameters"],
}


@functools.cache
def client(host=RELAY, key=KEY):
    return Anthropic(base_url=host, api_key=key)


def scripted(key=stage.SCRIPTED_KEY):
    return client(stage.SCRIPTED_RELAY, key)


def asked(text=QUESTION, temperature=0, **more):
    messages = [{"role": "user", "content": text}]
    return {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 16,
        "extra_body": {"temperature": temperature},
        **more,
    }


def ask(text=QUESTION, at=None, **more):
    return (at or client()).messages.create(**asked(text, **more))


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


@case
def models_are_listed():
    names = [model.id for model in client().models.list()]
    assert names == [MODEL], names
    assert client().models.retrieve(MODEL).id == MODEL


@case
def a_whole_answer_and_a_streamed_one_are_alike():
    whole = ask()
    assert (whole.type, whole.role, whole.model) == ("message", "assistant", MODEL), whole
    with client().messages.stream(**asked()) as stream:
        texts = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(texts) > 3, texts
    assert "".join(texts) == text_of(whole) == text_of(streamed), (texts, whole, streamed)
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    ), (streamed, whole)
    kinds = [event.type for event in ask(stream=True)]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"]), kinds
    assert (kinds.count("content_block_start"), kinds.count("content_block_stop")) == (1, 1), kinds


@case
def temperature_decides_the_answer():
    assert text_of(ask()) == text_of(ask())
    assert len({text_of(ask(temperature=1.5)) for _ in range(4)}) > 1


@case
def a_limit_ends_the_answer_with_length():
    answer = ask(max_tokens=5)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 5), answer


@case
def a_stop_word_ends_the_answer_before_it():
    stop, before = stage.a_stop_word_of(text_of(ask()))
    answer = ask(stop_sequences=[stop])
    assert (text_of(answer), answer.stop_reason) == (before, "end_turn"), (before, answer)


@case
def a_schema_is_kept():
    form = {"type": "json_schema", "schema": stage.SCHEMA}
    answer = ask("Is fire warm?", max_tokens=64, output_config={"format": form})
    assert isinstance(json.loads(text_of(answer))["warm"], bool), answer


@case
def tokens_are_counted_as_the_answer_counts_them():
    count = client().messages.count_tokens(model=MODEL, messages=asked()["messages"])
    assert count.input_tokens == ask().usage.input_tokens > 5, count


@case
def an_unknown_model_is_not_found():
    for stream in (False, True):
        with refused(anthropic.NotFoundError, 404, "model 'nobody:1b' not found"):
            ask(model="nobody:1b", stream=stream)


@case
def a_wrong_key_is_an_authentication_error():
    with refused(anthropic.AuthenticationError, 401, "authentication_error"):
        ask(at=client(key=stage.WRONG_KEY))


@case
def a_malformed_request_is_a_bad_request():
    with refused(anthropic.BadRequestError, 400, "messages"):
        ask(messages=[])
    with refused(anthropic.BadRequestError, 400, "max_tokens"):
        ask(max_tokens=-1)


@case
def leaving_a_stream_stops_the_engine():
    stream = ask(stage.STORY, stream=True, max_tokens=2000)
    for event in stream:
        if event.type == "content_block_delta":
            break
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
    with refused(anthropic.InternalServerError, 503, "no worker is online"):
        ask(model=TINY, at=scripted(stage.LONELY_KEY))
    times = wish("requests") - before
    assert times == 1, f"asked {times} times"


@case
def an_engine_that_dies_mid_stream_is_an_error():
    wish("play", scene="a_death", path="/api/chat")
    texts = []
    with refused(anthropic.APIStatusError, words="engine"):
        for event in ask(model=TINY, at=scripted(), stream=True):
            if event.type == "content_block_delta":
                texts.append(event.delta.text)
    assert texts == ["Six times "], texts


@case
def a_tool_is_called_whole_and_streamed():
    wish("play", scene="a_tool_call", path="/api/chat")
    whole = ask(model=TINY, at=scripted(), tools=[TOOL])
    wish("play", scene="a_tool_call", path="/api/chat")
    with scripted().messages.stream(**asked(model=TINY, tools=[TOOL])) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        assert (call.name, call.input) == ("weather", stage.ARGUMENTS), call
        assert answer.stop_reason == "tool_use", answer
    call = whole.content[-1]
    messages = [
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", "content": [call.to_dict()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Snow."}]},
    ]
    assert text_of(ask(model=TINY, at=scripted(), messages=messages)) == "Snow."
    sent = wish("asked_of_the_engine", path="/api/chat")["messages"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == stage.ARGUMENTS, sent
    assert (sent[2]["role"], sent[2]["tool_name"]) == ("tool", "weather"), sent


@case
def thoughts_are_kept_apart_from_the_answer():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    wish("play", scene="thoughts", path="/api/chat")
    whole = ask(model=TINY, at=scripted(), thinking=thinking)
    assert wish("asked_of_the_engine", path="/api/chat")["think"] is True
    wish("play", scene="thoughts", path="/api/chat")
    with scripted().messages.stream(**asked(model=TINY, thinking=thinking)) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        thought, text = answer.content
        assert (thought.thinking, text.text) == ("Six times seven.", "It is 42."), answer


@case
def an_image_reaches_the_engine():
    source = {"type": "base64", "media_type": "image/png", "data": stage.PNG}
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    answer = ask(model=TINY, at=scripted(), messages=[{"role": "user", "content": parts}])
    assert text_of(answer) == "What is it?", answer
    sent = wish("asked_of_the_engine", path="/api/chat")
    assert sent["messages"][0]["images"] == [stage.PNG], sent


@case
def a_long_silence_is_survived_whole_and_streamed():
    wish("play", scene="words", path="/api/chat", late=2)
    whole = text_of(ask(model=TINY, at=scripted()))
    assert whole == "Six times seven.", whole
    wish("play", scene="words", path="/api/chat", late=2)
    with scripted().messages.stream(**asked(model=TINY)) as stream:
        assert stream.get_final_text() == "Six times seven."


@case_by_name_only
def a_killed_agent_is_an_error():
    texts = []
    with refused(anthropic.APIStatusError, words="lost"):
        for event in ask(model=TINY, at=scripted(), stream=True):
            if event.type == "content_block_delta":
                texts.append(event.delta.text)
                wish("lose_the_agent")
    assert texts == ["Six times "], texts


stage.main()
