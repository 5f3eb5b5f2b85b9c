"""The official `ollama` client."""

import functools
import json

import httpx
import pydantic
import stage
from ollama import Client, ResponseError
from stage import KEY, MODEL, QUESTION, RELAY, TINY, case, case_by_name_only, refused, wish


@functools.cache
def client(host=RELAY, key=KEY):
    return Client(host=host, headers={"Authorization": f"Bearer {key}"})


def scripted(key=stage.SCRIPTED_KEY):
    return client(stage.SCRIPTED_RELAY, key)


def ask(text=QUESTION, at=None, **more):
    options = {"temperature": 0, "num_predict": 16, **more.pop("options", {})}
    model = more.pop("model", MODEL)
    messages = [{"role": "user", "content": text}]
    return (at or client()).chat(model=model, messages=messages, options=options, **more)


@case
def models_are_listed():
    names = [model.model for model in client().list().models]
    assert names == [MODEL], names


@case
def a_whole_answer_and_a_streamed_one_are_alike():
    whole = ask()
    assert whole.done and whole.message.role == "assistant", whole
    parts = list(ask(stream=True))
    texts = [part.message.content for part in parts if part.message.content]
    assert len(texts) > 3, texts
    assert "".join(texts) == whole.message.content, (texts, whole.message.content)
    assert [part.done for part in parts].count(True) == 1 and parts[-1].done, parts
    assert parts[-1].eval_count == whole.eval_count, (parts[-1], whole)


@case
def temperature_and_seed_decide_the_answer():
    def warm(seed):
        return ask(options={"temperature": 1.5, "seed": seed}).message.content

    assert warm(7) == warm(7)
    assert len({warm(seed) for seed in range(3)}) > 1


@case
def a_limit_ends_the_answer_with_length():
    answer = ask(options={"num_predict": 5})
    assert (answer.done_reason, answer.eval_count) == ("length", 5), answer


@case
def a_stop_word_ends_the_answer_before_it():
    stop, before = stage.a_stop_word_of(ask().message.content)
    answer = ask(options={"stop": [stop]})
    assert (answer.message.content, answer.done_reason) == (before, "stop"), (before, answer)


@case
def a_schema_is_kept():
    answer = ask("Is fire warm?", format=stage.SCHEMA, options={"num_predict": 64})
    assert isinstance(json.loads(answer.message.content)["warm"], bool), answer


@case
def an_unknown_model_is_not_found():
    for stream in (False, True):
        with refused(ResponseError, 404, "model 'nobody:1b' not found"):
            list(ask(model="nobody:1b", stream=stream))


@case
def a_wrong_key_is_an_authentication_error():
    with refused(ResponseError, 401, "key"):
        ask(at=client(key=stage.WRONG_KEY))
    with refused(ResponseError, 401, "key"):
        client(key=stage.WRONG_KEY).list()


@case
def a_malformed_request_is_a_bad_request():
    with refused(ResponseError, 400, "invalid duration"):
        ask(keep_alive="soon")


@case
def leaving_a_stream_stops_the_engine():
    stream = ask(stage.STORY, stream=True, options={"num_predict": 2000})
    next(stream)
    stream.close()
    state = wish("newest_job")
    assert state == "cancelled", state


@case
def giving_up_on_a_whole_answer_stops_the_engine():
    hasty = Client(host=RELAY, headers={"Authorization": f"Bearer {KEY}"}, timeout=0.5)
    with refused(httpx.ReadTimeout):
        ask(stage.STORY, at=hasty, options={"num_predict": 2000})
    state = wish("newest_job")
    assert state == "cancelled", state


@case
def two_questions_at_once_are_both_answered():
    one, two = stage.at_once(lambda: ask().message.content)
    assert one == two and isinstance(one, str) and one, (one, two)


@case
def without_an_agent_the_refusal_is_told():
    before = wish("requests")
    with refused(ResponseError, 503, "no worker is online"):
        ask(model=TINY, at=scripted(stage.LONELY_KEY))
    assert wish("requests") - before == 1


@case
def an_engine_that_dies_mid_stream_is_an_error():
    wish("play", scene="a_death", path="/api/chat")
    parts = []
    with refused(ResponseError, words="engine"):
        for part in ask(model=TINY, at=scripted(), stream=True):
            parts.append(part.message.content)
    assert parts == ["Six times "], parts
    # Once whitespace was sent, the status is fixed, and the error is in the body.
    wish("play", scene="a_death", path="/api/chat", late=2)
    with refused(pydantic.ValidationError, words="message"):
        ask(model=TINY, at=scripted())


@case
def a_tool_is_called_whole_and_streamed():
    for stream in (False, True):
        wish("play", scene="a_tool_call", path="/api/chat", whole=not stream)
        answer = ask(model=TINY, at=scripted(), stream=stream, tools=[stage.WEATHER])
        parts = list(answer) if stream else [answer]
        calls = [call for part in parts for call in part.message.tool_calls or []]
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("weather", stage.ARGUMENTS)
        ], parts
        asked = wish("asked_of_the_engine", path="/api/chat")
        assert asked["tools"][0]["function"]["name"] == "weather", asked


@case
def thoughts_are_kept_apart_from_the_answer():
    for stream in (False, True):
        wish("play", scene="thoughts", path="/api/chat", whole=not stream)
        answer = ask(model=TINY, at=scripted(), stream=stream, think=True)
        parts = list(answer) if stream else [answer]
        thoughts = "".join(part.message.thinking or "" for part in parts)
        texts = "".join(part.message.content or "" for part in parts)
        assert (thoughts, texts) == ("Six times seven.", "It is 42."), parts
        assert wish("asked_of_the_engine", path="/api/chat")["think"] is True


@case
def an_image_reaches_the_engine():
    message = {"role": "user", "content": "What is it?", "images": [stage.PNG]}
    answer = scripted().chat(model=TINY, messages=[message])
    assert answer.message.content == "What is it?", answer
    asked = wish("asked_of_the_engine", path="/api/chat")
    assert asked["messages"][0]["images"] == [stage.PNG], asked


@case
def a_long_silence_is_survived_whole_and_streamed():
    wish("play", scene="words", path="/api/chat", whole=True, late=2)
    whole = ask(model=TINY, at=scripted()).message.content
    assert whole == "Six times seven.", whole
    wish("play", scene="words", path="/api/chat", late=2)
    texts = [part.message.content for part in ask(model=TINY, at=scripted(), stream=True)]
    assert "".join(texts) == "Six times seven.", texts


@case
def a_text_is_continued_whole_and_streamed():
    def go_on(**more):
        options = {"temperature": 0, "num_predict": 8}
        return client().generate(model=MODEL, prompt=QUESTION, options=options, **more)

    parts = list(go_on(stream=True))
    whole = go_on()
    assert whole.response and "".join(part.response for part in parts) == whole.response, (parts, whole)
    assert (parts[-1].done, parts[-1].done_reason, whole.done_reason) == (True, "length", "length"), parts


@case
def texts_become_vectors():
    answer = scripted().embed(model=TINY, input="one")
    assert [list(vector) for vector in answer.embeddings] == [[0.6, 0.8]], answer
    assert wish("asked_of_the_engine", path="/api/embed")["input"] == "one"


@case
def an_engine_without_embeddings_refuses():
    with refused(ResponseError, 501, "does not support embeddings"):
        client().embed(model=MODEL, input="one")


@case
def a_key_in_the_address_is_enough():
    at = Client(host=f"{RELAY}/k/{KEY}")
    assert [model.model for model in at.list().models] == [MODEL]
    assert ask(at=at, options={"num_predict": 4}).message.content, "nothing was said"
    with refused(ResponseError, 401):
        Client(host=f"{RELAY}/k/{stage.WRONG_KEY}").list()


@case
def a_model_is_shown():
    shown = client().show(MODEL)
    assert (shown.details.family, shown.details.format) == ("llama", "gguf"), shown
    assert "completion" in shown.capabilities, shown
    info = shown.modelinfo
    assert (info["general.architecture"], info["llama.context_length"] > 0) == ("llama", True), info
    with refused(ResponseError, 404):
        client().show("nobody:1b")


@case
def a_model_is_loaded_without_a_question():
    answer = client().chat(model=MODEL, messages=[])
    assert (answer.message.content, answer.done_reason) == ("", "load"), answer
    answer = client().generate(model=MODEL)
    assert (answer.response, answer.done_reason) == ("", "load"), answer
    (running,) = stage.until(lambda: client().ps().models, lambda models: len(models) == 1)
    assert (running.model, running.context_length > 0) == (MODEL, True), running
    assert running.expires_at, running
    answer = client().generate(model=MODEL, keep_alive=0)
    assert (answer.response, answer.done_reason) == ("", "unload"), answer
    stage.until(lambda: client().ps().models, lambda models: not models)


@case
def a_text_becomes_a_vector_the_older_way():
    answer = scripted().embeddings(model=TINY, prompt="one")
    assert list(answer.embedding) == [0.6, 0.8], answer


@case_by_name_only
def a_killed_agent_is_an_error():
    texts = []
    with refused(ResponseError, words="lost"):
        for part in ask(model=TINY, at=scripted(), stream=True):
            if part.message.content:
                texts.append(part.message.content)
                wish("lose_the_agent")
    assert texts == ["Six times "], texts


stage.main()
