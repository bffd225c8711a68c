"""Requests through mlx_lm's own HTTP handler: what is answered, and that nothing goes on for a client that left."""

from __future__ import annotations

import json
import threading
from itertools import islice
from queue import Queue
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import server
from mlx_lm.sample_utils import make_logits_processors

from draftd.engine.answers import presence
from draftd.engine.answers.arguments import TINY
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.answers.timings import COUNT_ATTRIBUTE
from draftd.engine.generation.rows import Rows
from draftd.engine.generation.sampling import Logits, Shape
from draftd.engine.refusals import RefusedRequestError
from tests.engine.answers.scripted import DEADLINE, Script, Turn, events, serving

TOOLS = [{"type": "function", "function": {"name": "f"}}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def saying(*texts: str, reason: str | None = "stop") -> Script:
    return lambda turn: turn.tokens(*texts, reason=reason)


def whole(script: Script, path: str = CHAT, **body: Any) -> dict[str, Any]:
    with serving(script) as served:
        status, answer = served.ask(path, **body)
    assert status == 200, answer
    told: dict[str, Any] = json.loads(answer)
    return told


def streamed(script: Script, path: str = CHAT, **body: Any) -> list[Any]:
    with serving(script) as served:
        status, answer = served.ask(path, stream=True, **body)
    assert status == 200, answer
    return events(answer)


# --- what is answered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "field"), [(CHAT, "content"), (TEXT, "text")])
def test_a_stop_text_ends_the_answer_and_the_generation_streamed_or_not(path: str, field: str) -> None:
    turns: Queue[Turn] = Queue()

    def script(turn: Turn) -> None:
        turns.put(turn)
        turn.tokens("one ST", "OP two", " three", "")

    choice = whole(script, path, stop="STOP")["choices"][0]
    assert (choice.get("message") or choice)[field] == "one "
    assert choice["finish_reason"] == "stop"
    *chunks, end = streamed(script, path, stop=["STOP"], stream_options={"include_usage": True})
    assert end == "[DONE]"
    assert chunks.pop()["usage"] == USAGE  # of the two tokens that were taken
    deltas = [chunk["choices"][0].get("delta") or chunk["choices"][0] for chunk in chunks]
    assert [delta.get(field, "") for delta in deltas] == ["one ", ""]
    assert all(turns.get().context.stopped.wait(DEADLINE) for _ in range(2))


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_last_chunk_and_a_whole_answer_have_the_timings(path: str) -> None:
    def script(turn: Turn) -> None:
        setattr(turn.context, COUNT_ATTRIBUTE, SimpleNamespace(proposed=4, accepted=1))
        turn.tokens("one", " two")

    told = [whole(script, path)]
    for options in ({}, {"stream_options": {"include_usage": True}}):
        *chunks, last, done = streamed(script, path, **options)
        assert done == "[DONE]"
        assert not any("timings" in chunk for chunk in chunks)
        assert bool(last["choices"]) is not bool(options)
        told.append(last)
    for each in told:
        timings = each["timings"]
        assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (2, 1, 2)
        assert (timings["draft_n"], timings["draft_n_accepted"]) == (4, 1)
        assert timings["prompt_ms"] > 0
        assert timings["predicted_ms"] > 0


def test_mlx_is_told_of_no_stop_text() -> None:
    told: Queue[Any] = Queue()

    def script(turn: Turn) -> None:
        told.put(turn.arguments)
        turn.tokens("a")

    whole(script, stop=["b"], max_tokens=7, seed=5, presence_context_size=9)
    arguments = told.get()
    assert (arguments.stop_words, arguments.max_tokens, arguments.seed) == ([], 7, 5)
    assert arguments.logits.presence_context_size == 9


@pytest.mark.fault(211)
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"presence_penalty": 1.0, "presence_context_size": 0}, {"presence_penalty": 0.0}),
        ({"frequency_penalty": 1.0, "frequency_context_size": 0}, {"frequency_penalty": 0.0}),
        ({"repetition_penalty": 1.3, "repetition_context_size": 0}, {"repetition_penalty": 0.0}),
        ({"presence_penalty": 1.0, "presence_context_size": 1}, {"presence_penalty": 1.0}),
        ({"repetition_penalty": 1e-300}, {"repetition_penalty": TINY}),
        ({"repetition_penalty": 1e300}, {"repetition_penalty": 1 / TINY}),
        ({"temperature": 1e-39}, {"temperature": 0.0}),
        ({"temperature": TINY}, {"temperature": TINY}),
    ],
)
def test_no_number_is_told_mlx_that_it_takes_for_another(asked: dict[str, Any], told: dict[str, Any]) -> None:
    """A penalty that looks back at none punished as many as a draft was long; infinities had no likeliest token."""
    arguments: Queue[Any] = Queue()

    def script(turn: Turn) -> None:
        arguments.put(turn.arguments)
        turn.tokens("a")

    whole(script, **asked)
    found = arguments.get()
    values = vars(found.sampling) | vars(found.logits)
    assert {name: values[name] for name in told} == told


@pytest.mark.fault(211)
def test_the_smallest_temperature_and_penalties_leave_numbers() -> None:
    rows = Rows.of(mx.array([[90.0, 3000.0, 2999.0, -3000.0]]))
    for penalty in (TINY, 1 / TINY):
        row = Logits(4, make_logits_processors(repetition_penalty=penalty), 20)(rows, [1, 3]).array
        shaped = Shape(TINY)(row / mx.abs(row).max(), 0)
        assert mx.isfinite(row).all().item()
        assert mx.isfinite(shaped).all().item()


def test_a_stop_text_does_not_end_a_thought_and_what_is_a_mark_in_a_chat_is_text_elsewhere() -> None:
    thinking = saying("<think>STOP", "</think>", "a STOP", "b", "")
    message = whole(thinking, stop="STOP")["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("STOP", "a ")
    assert whole(thinking, TEXT)["choices"][0]["text"] == "<think>STOP</think>a STOPb"


@pytest.mark.parametrize("stop", [[""], "", 5, ["a"] * 17, "x" * 257])
def test_a_stop_that_cannot_be_heeded_is_refused(stop: Any) -> None:
    with serving(saying("a")) as served:
        status, answer = served.ask(stop=stop)
    assert (status, json.loads(answer)["error"]["param"]) == (400, "stop")


@pytest.mark.fault(51)
def test_a_call_is_told_whole_and_a_malformed_one_as_text() -> None:
    call, bad = '<tool_call>{"name": "f"}</tool_call>', "<tool_call>[5]</tool_call>"
    for told in (
        whole(saying("a", call, ""), tools=TOOLS)["choices"][0],
        streamed(saying("a", call, ""), tools=TOOLS)[-2]["choices"][0],
    ):
        assert told["finish_reason"] == "tool_calls"
    choice = whole(saying("a", bad, "b", ""), tools=TOOLS)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": f"a{bad}b"}
    chunks = streamed(saying("a", *bad, "b", ""), tools=TOOLS)[:-1]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == f"a{bad}b"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_last_chunk_names_the_stop_text_that_ended_the_answer() -> None:
    chunks = streamed(saying("a", " STOP", ""), stop=["x", "STOP"])[:-1]
    told = [chunk["choices"][0].get("stop_reason") for chunk in chunks]
    assert told == [None] * (len(told) - 1) + ["STOP"]
    assert all("stop_reason" not in chunk["choices"][0] for chunk in streamed(saying("a", ""), stop="x")[:-1])


@pytest.mark.parametrize(("path", "form"), [(CHAT, "message"), (TEXT, "text")])
def test_a_prompt_is_counted_and_nothing_generated(path: str, form: str) -> None:
    def never(turn: Turn) -> None:
        raise AssertionError("it has waited for its turn")

    told = whole(never, path, count_only=True)
    assert told["usage"] == {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}
    assert told["choices"][0][form] in ("", {"role": "assistant", "content": None})
    *chunks, usage, done = streamed(never, path, count_only=True, stream_options={"include_usage": True})
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == ["stop"]
    assert (usage["usage"], usage["choices"], done) == (told["usage"], [], "[DONE]")


def test_a_prompt_that_cannot_be_read_is_not_counted() -> None:
    with serving(saying("a")) as served:
        status, answer = served.ask(
            count_only=True, messages=[{"role": "user", "content": [{"type": "image"}]}]
        )
    assert (status, "could not be read" in answer) == (400, True)


def test_without_tools_there_is_no_call_whatever_the_model_writes() -> None:
    call = '<tool_call>{"name": "f"}</tool_call>'
    without: list[dict[str, Any]] = [{}, {"tools": []}]
    for tools in without:
        choice = whole(saying("a", call, "b", ""), **tools)["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", f"a{call}b")
        assert "tool_calls" not in choice["message"]


def test_where_one_call_is_asked_for_the_generation_ends_after_it() -> None:
    turns: Queue[Turn] = Queue()

    def script(turn: Turn) -> None:
        turns.put(turn)
        turn.tokens(
            '<tool_call>{"name": "f"}', "</tool_call>", '<tool_call>{"name": "g"}', "</tool_call>", ""
        )

    for parallel, called in ((False, ["f"]), (True, ["f", "g"])):
        told = whole(script, tools=TOOLS, parallel_tool_calls=parallel)
        calls = told["choices"][0]["message"]["tool_calls"]
        assert [call["function"]["name"] for call in calls] == called
        assert told["choices"][0]["finish_reason"] == "tool_calls"
        assert told["usage"]["completion_tokens"] == (2 if called == ["f"] else 5)
        assert turns.get().context.stopped.wait(DEADLINE)
    chunks = streamed(script, tools=TOOLS, parallel_tool_calls=False)[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [call["function"]["name"] for delta in deltas for call in delta.get("tool_calls", [])] == ["f"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def scored(turn: Turn) -> None:
    """Tokens that are not the likeliest in their place; the likeliest come in any order."""
    turn.put(turn.context)
    tops = ({"id": 3, "logprob": -2.0, "token": "?"}, {"id": 0, "logprob": -0.5, "token": "?"})
    for token, text in ((1, "b"), (2, "c")):
        turn.put(server.Response(text, token, -3.0, None, tops))
    turn.put(server.Response("", 0, -0.1, "stop", tops))
    turn.put(None)


def test_log_probabilities_are_of_the_generated_tokens_with_the_likeliest_in_their_order() -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
    content = whole(scored, **asked)["choices"][0]["logprobs"]["content"]
    assert [(entry["token"], entry["logprob"]) for entry in content] == [("b", -3.0), ("c", -3.0)]
    assert [[top["token"] for top in entry["top_logprobs"]] for entry in content] == [["a", "d"]] * 2
    chunks = streamed(scored, **asked)[:-1]
    assert [
        c for chunk in chunks for c in (chunk["choices"][0].get("logprobs") or {}).get("content", [])
    ] == content
    form = whole(scored, TEXT, **asked)["choices"][0]["logprobs"]
    assert (form["tokens"], form["text_offset"]) == (["b", "c"], [0, 1])
    assert form["top_logprobs"] == [{"a": -0.5, "d": -2.0, each: -3.0} for each in ("b", "c")]


@pytest.mark.parametrize(("number", "status"), [(0, 200), (20, 200), (21, 400), (-2, 400), ("x", 400)])
def test_as_many_likeliest_tokens_may_be_wanted_as_openai_allows(number: Any, status: int) -> None:
    wanted: Queue[int] = Queue()

    def script(turn: Turn) -> None:
        wanted.put(turn.arguments.top_logprobs)
        turn.tokens("a")

    with serving(script) as served:
        assert served.ask(logprobs=True, top_logprobs=number)[0] == status
    assert list(wanted.queue) == ([number] if status == 200 else [])


def test_the_end_of_sequence_is_no_token_of_the_answer_though_it_brings_the_rest_of_the_text() -> None:
    told = whole(saying("a", "", "\ufffd"), logprobs=True)["choices"][0]
    assert told["message"]["content"] == "a\ufffd"
    assert [entry["token"] for entry in told["logprobs"]["content"]] == ["a", "b"]


def test_log_probabilities_end_with_the_text_that_a_stop_text_cut() -> None:
    told = whole(saying("a", "b", "ST", "OP", "c"), stop="STOP", logprobs=True)
    assert [entry["token"] for entry in told["choices"][0]["logprobs"]["content"]] == ["a", "b"]


# --- what goes wrong ----------------------------------------------------------------------------------------


def failing(error: Exception, *, after: int = 0) -> Script:
    """Fail before the generation begins, or after so many tokens of it."""

    def script(turn: Turn) -> None:
        for each in [turn.context, *[server.Response("a", 0, 0.0, None, ())] * (after - 1)][:after]:
            turn.put(each)
        turn.put(error)

    return script


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_at_fault_is_told_why(stream: bool) -> None:
    with serving(failing(RefusedRequestError("too long", code="c", param="p"))) as served:
        status, answer = served.ask(stream=stream)
    assert (status, json.loads(answer)) == (
        400,
        {"error": {"message": "too long", "code": "c", "param": "p"}},
    )


@pytest.mark.parametrize("stream", [True, False])
def test_another_error_is_no_fault_of_the_request(stream: bool) -> None:
    with serving(failing(RuntimeError("no memory"))) as served:
        status, answer = served.ask(stream=stream)
    assert (status, json.loads(answer)["error"]["message"]) == (500, "RuntimeError: no memory")


def test_an_error_in_the_middle_ends_a_stream_as_an_error() -> None:
    *_, last = streamed(failing(RuntimeError("no memory"), after=3))
    assert last["error"]["message"] == "RuntimeError: no memory"
    with serving(failing(RuntimeError("no memory"), after=3)) as served:
        assert served.ask()[0] == 500


def test_a_generation_that_breaks_off_is_not_taken_for_whole() -> None:
    *_, last = streamed(saying("a", "b", reason=None))
    assert "without a reason" in last["error"]["message"]


def test_who_waits_for_a_thread_that_died_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_INTERVAL", 0.01)
    turns: Queue[Turn] = Queue()
    with serving(turns.put) as served:
        with served.send() as connection:
            turns.get(timeout=DEADLINE)
            served.generator.alive = False
            assert b"500" in connection.recv(100)
        status, answer = served.ask()
        assert (status, "generation thread died" in answer) == (500, True)


# --- clients that leave -------------------------------------------------------------------------------------

THINGS: dict[str, Any] = {
    "prompt": (1, 100),
    "token": server.Response("a", 0, 0.0, None, ()),
    "call": server.Response("<tool_call>", 0, 0.0, None, ()),
    "held": server.Response("", 0, 0.0, None, ()),
}


@pytest.mark.fault(30)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("thing", THINGS)
def test_whatever_is_done_for_a_client_ends_when_it_leaves(thing: str, stream: bool) -> None:
    begun, stopped = threading.Event(), Queue[bool]()

    def script(turn: Turn) -> None:
        turn.put(turn.context)
        turn.put(THINGS[thing])
        turn.until_taken()
        begun.set()
        stopped.put(turn.repeat(THINGS[thing]))

    with serving(script) as served:
        with served.send(stream=stream):
            assert begun.wait(DEADLINE)
        assert stopped.get()


def test_a_client_that_leaves_while_nothing_comes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_INTERVAL", 0.01)
    begun, stopped = threading.Event(), Queue[bool]()

    def script(turn: Turn) -> None:
        turn.put(turn.context)
        begun.set()
        stopped.put(turn.context.stopped.wait(DEADLINE))

    with serving(script) as served:
        with served.send():
            assert begun.wait(DEADLINE)
        assert stopped.get()


def test_a_request_whose_client_left_the_queue_is_marked_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_INTERVAL", 0.01)
    turns: Queue[Turn] = Queue()
    idle = threading.Event()
    with serving(turns.put) as served:
        with served.send():
            turn = turns.get(timeout=DEADLINE)
        marked = (getattr(turn.arguments, LEFT_ATTRIBUTE, False) for _ in iter(lambda: idle.wait(0.01), None))
        assert any(islice(marked, 1000))
        turn.put(turn.context)  # its turn had come a moment before
        assert turn.context.stopped.wait(DEADLINE)
        with served.send():
            turn = turns.get(timeout=DEADLINE)
        turn.put(LeftError())  # skipped: there is nobody to tell


@pytest.mark.parametrize("thing", ["call", "held"])
def test_a_stream_in_which_nothing_is_to_be_seen_has_comments(
    monkeypatch: pytest.MonkeyPatch, thing: str
) -> None:
    monkeypatch.setattr(presence, "COMMENT_INTERVAL", 0.0)

    def script(turn: Turn) -> None:
        turn.put(turn.context)
        for _ in range(2):
            turn.put(THINGS[thing])
        turn.put(server.Response("", 0, 0.0, "stop", ()))
        turn.put(None)

    assert streamed(script)[:2] == [": keepalive"] * 2


def test_a_stream_has_a_comment_for_each_piece_of_the_prompt() -> None:
    def script(turn: Turn) -> None:
        turn.put(turn.context)
        turn.put((2048, 4000))
        turn.put(server.Response("a", 0, 0.0, "length", ()))
        turn.put(None)

    assert streamed(script)[0] == ": keepalive 2048/4000"
