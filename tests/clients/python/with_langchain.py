"""LangChain's `ChatOllama` and `OllamaEmbeddings`."""

import stage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from ollama import ResponseError
from stage import KEY, MODEL, QUESTION, RELAY, TINY, case, case_by_name_only, refused, wish


def chat(host=RELAY, key=KEY, **more):
    headers = {"headers": {"Authorization": f"Bearer {key}"}}
    asked = {"model": MODEL, "temperature": 0, "num_predict": 16, **more}
    return ChatOllama(base_url=host, client_kwargs=headers, **asked)


def scripted(key=stage.SCRIPTED_KEY, **more):
    return chat(stage.SCRIPTED_RELAY, key, model=TINY, **more)


@tool
def weather(city: str, days: int) -> str:
    """The weather of the coming days."""
    return "Snow."


@case
def a_whole_answer_and_a_streamed_one_are_alike():
    whole = chat().invoke(QUESTION)
    chunks = list(chat().stream(QUESTION))
    texts = [chunk.content for chunk in chunks if chunk.content]
    assert len(texts) > 3, texts
    assert "".join(texts) == whole.content, (texts, whole)
    done = [chunk.response_metadata["done"] for chunk in chunks if chunk.response_metadata]
    assert done == [True], chunks
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert usage == [whole.usage_metadata], (usage, whole)


@case
def temperature_and_seed_decide_the_answer():
    def warm(seed):
        return chat(temperature=1.5, seed=seed).invoke(QUESTION).content

    assert warm(7) == warm(7)
    assert len({warm(seed) for seed in range(3)}) > 1


@case
def a_limit_ends_the_answer_with_length():
    answer = chat(num_predict=5).invoke(QUESTION)
    assert answer.response_metadata["done_reason"] == "length", answer
    assert answer.usage_metadata["output_tokens"] == 5, answer


@case
def a_stop_word_ends_the_answer_before_it():
    stop, before = stage.a_stop_word_of(chat().invoke(QUESTION).content)
    answer = chat().invoke(QUESTION, stop=[stop])
    assert answer.content == before, (before, answer)


@case
def a_schema_is_kept():
    structured = chat(num_predict=64).with_structured_output(stage.SCHEMA | {"title": "answer"})
    answer = structured.invoke("Is fire warm?")
    assert isinstance(answer["warm"], bool), answer


@case
def an_unknown_model_is_not_found():
    with refused(ResponseError, 404, "model 'nobody:1b' not found"):
        chat(model="nobody:1b").invoke(QUESTION)


@case
def a_wrong_key_is_an_authentication_error():
    with refused(ResponseError, 401, "key"):
        chat(key=stage.WRONG_KEY).invoke(QUESTION)


@case
def a_malformed_request_is_a_bad_request():
    with refused(ResponseError, 400, "invalid duration"):
        chat(keep_alive="soon").invoke(QUESTION)


@case
def leaving_a_stream_stops_the_engine():
    stream = chat(num_predict=2000).stream(stage.STORY)
    next(stream)
    stream.close()
    state = wish("newest_job")
    assert state == "cancelled", state


@case
def two_questions_at_once_are_both_answered():
    one, two = stage.at_once(lambda: chat().invoke(QUESTION).content)
    assert one == two and isinstance(one, str) and one, (one, two)


@case
def without_an_agent_the_refusal_is_told():
    before = wish("requests")
    with refused(ResponseError, 503, "no worker is online"):
        scripted(stage.LONELY_KEY).invoke(QUESTION)
    assert wish("requests") - before == 1


@case
def an_engine_that_dies_mid_stream_is_an_error():
    wish("play", scene="a_death", path="/api/chat")
    texts = []
    with refused(ResponseError, words="engine"):
        for chunk in scripted().stream(QUESTION):
            texts.append(chunk.content)
    assert texts == ["Six times "], texts


@case
def a_tool_is_called_whole_and_streamed():
    for stream in (False, True):
        wish("play", scene="a_tool_call", path="/api/chat")
        model = scripted().bind_tools([weather])
        parts = list(model.stream(QUESTION)) if stream else [model.invoke(QUESTION)]
        calls = [call for part in parts for call in part.tool_calls]
        assert [(call["name"], call["args"]) for call in calls] == [("weather", stage.ARGUMENTS)], parts
        asked = wish("asked_of_the_engine", path="/api/chat")
        assert asked["tools"][0]["function"]["name"] == "weather", asked


@case
def thoughts_are_kept_apart_from_the_answer():
    for stream in (False, True):
        wish("play", scene="thoughts", path="/api/chat")
        model = scripted(reasoning=True)
        parts = list(model.stream(QUESTION)) if stream else [model.invoke(QUESTION)]
        thoughts = "".join(part.additional_kwargs.get("reasoning_content", "") for part in parts)
        assert thoughts == "Six times seven.", parts
        assert "".join(part.content for part in parts) == "It is 42.", parts


@case
def an_image_reaches_the_engine():
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": f"data:image/png;base64,{stage.PNG}"},
    ]
    scripted().invoke([("human", parts)])
    asked = wish("asked_of_the_engine", path="/api/chat")
    assert asked["messages"][0]["images"] == [stage.PNG], asked


@case
def a_long_silence_is_survived_whole_and_streamed():
    wish("play", scene="words", path="/api/chat", late=2)
    whole = scripted().invoke(QUESTION).content
    assert whole == "Six times seven.", whole
    wish("play", scene="words", path="/api/chat", late=2)
    texts = [part.content for part in scripted().stream(QUESTION)]
    assert "".join(texts) == "Six times seven.", texts


@case
def texts_become_vectors():
    headers = {"headers": {"Authorization": f"Bearer {stage.SCRIPTED_KEY}"}}
    embeddings = OllamaEmbeddings(model=TINY, base_url=stage.SCRIPTED_RELAY, client_kwargs=headers)
    assert embeddings.embed_query("one") == [0.6, 0.8]


@case_by_name_only
def a_killed_agent_is_an_error():
    texts = []
    with refused(ResponseError, words="lost"):
        for part in scripted().stream(QUESTION):
            if part.content:
                texts.append(part.content)
                wish("lose_the_agent")
    assert texts == ["Six times "], texts


stage.main()
