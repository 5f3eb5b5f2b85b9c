"""Shared by the scripts: the cases, their report, and requests to the stage."""

import contextlib
import json
import os
import sys
import threading
import traceback

# A relay with a real model, unless only cases of the other relay are named.
RELAY, KEY, MODEL = os.environ.get("RELAY"), os.environ.get("RELAY_KEY"), os.environ.get("MODEL")
# A relay with a scripted engine.
SCRIPTED_RELAY, SCRIPTED_KEY = os.environ["SCRIPTED_RELAY"], os.environ["SCRIPTED_KEY"]
LONELY_KEY = os.environ.get("LONELY_KEY")
WRONG_KEY = "hearth_nobody_has_this_key"
TINY = "tiny"

QUESTION = "Count from one to ten in words."
# The answer is long enough that it is still being written when the client disconnects.
STORY = "Write a very long story about a fire that never goes out."
SCHEMA = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}},
    "required": ["warm"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of the coming days.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
ARGUMENTS = {"city": "Kraków", "days": 3}
# One white pixel.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII="
)

cases, cases_by_name_only = {}, {}


def case(function):
    cases[function.__name__] = function
    return function


def case_by_name_only(function):
    cases_by_name_only[function.__name__] = function
    return function


def say(**what):
    print(json.dumps(what), flush=True)


def wish(do, **more):
    say(do=do, **more)
    answer = json.loads(sys.stdin.readline())
    assert "error" not in answer, answer["error"]
    return answer["ok"]


@contextlib.contextmanager
def refused(kind, status=None, words=""):
    """Checks that the block raises this error of the client, with this status and these words."""
    try:
        yield
    except kind as error:
        got = getattr(error, "status_code", None)
        assert status is None or got == status, f"status {got}: {error}"
        assert words in str(error), f"no {words!r} in: {error}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def at_once(function, times=2):
    """Calls the function in this many threads at once, and returns its results."""
    results, barrier = [], threading.Barrier(times)

    def call():
        barrier.wait()
        try:
            results.append(function())
        except Exception as error:  # told by whoever looks at the results
            results.append(error)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def until(ask, is_there):
    """Polls for the expected answer, because there is no event."""
    for _ in range(10_000):
        answer = ask()
        if is_there(answer):
            return answer
    raise AssertionError(f"never as it should be: {answer}")


def a_stop_word_of(answer):
    """A stop word from the middle of an answer, and the part of the answer before it."""
    words = answer.split()
    assert len(words) > 3, answer
    stop = words[2]
    return stop, answer[: answer.index(stop)]


def main():
    named = sys.argv[1:]
    chosen = {name: {**cases, **cases_by_name_only}[name] for name in named} if named else cases
    for name, run in chosen.items():
        try:
            run()
            say(case=name, ok=True)
        except Exception as error:
            at = [frame for frame in traceback.extract_tb(error.__traceback__) if "with_" in frame.filename]
            where = f" (line {at[-1].lineno}: {at[-1].line})" if at else ""
            say(case=name, ok=False, why=f"{type(error).__name__}: {error}{where}")
