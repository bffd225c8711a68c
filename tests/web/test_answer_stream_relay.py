"""The fast path through a stream gives what parsing and rewriting each event gives."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draftd.web import answer_stream
from draftd.web.answer import Answer
from draftd.web.answer_stream import DONE, EventSplitter, Relay, to_event

TEXTS = st.text(max_size=8) | st.sampled_from(
    ['"', "\\", '"content": "x"', "\n\n", "data: {", "\x00", "é🎈", "\ud83d"]
)


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": None, "delta": {"role": "assistant"} | delta}
    return {"id": "x", "model": "default_model", "created": 1, "choices": [choice]} | more


def scored(text: str) -> dict[str, Any]:
    """With the same log-probability each time: then only the text differs."""
    told = chunk({"content": text})
    told["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": 0.0}]}
    return told


def by_drafter(text: str) -> dict[str, Any]:
    """With the same drafter each time: then only the text differs."""
    told = chunk({"content": text})
    told["choices"][0]["drafters"] = {"content": [{"text": "a", "drafter": "model"}]}
    return told


def text_chunk(text: str) -> dict[str, Any]:
    return {
        "id": "x",
        "model": "default_model",
        "choices": [{"index": 0, "finish_reason": None, "text": text}],
    }


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
CHUNKS = st.one_of(
    TEXTS.map(lambda text: chunk({"content": text})),
    TEXTS.map(lambda text: chunk({"reasoning": text})),
    TEXTS.map(lambda text: chunk({"content": text, "tool_calls": [CALL]})),
    TEXTS.map(text_chunk),
    TEXTS.map(scored),
    TEXTS.map(by_drafter),
    st.just(chunk({})),
    st.just(chunk({}, choices=[], usage={"total_tokens": 1})),
)
END = {**chunk({}), "choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]}


def wire(chunks: list[dict[str, Any]], *, ascii_only: bool) -> bytes:
    made = [json.dumps(c, ensure_ascii=ascii_only).encode("utf-8", "replace") for c in chunks]
    return b"".join(b"data: " + data + b"\n\n" for data in [*made, json.dumps(END).encode(), b"[DONE]"])


def slowly(stream: bytes, *, wants_usage: bool) -> tuple[bytes, Answer]:
    answer = Answer("chat.completions", "mine")
    taken = [answer.take(data) for data in EventSplitter().feed(stream)]
    sent = [c for c in taken if c is not None and (wants_usage or c["choices"])]
    return b"".join(to_event(c) for c in sent), answer


@example([by_drafter("é"), by_drafter("é")], False, False, [])  # the only text in ASCII is not the answer's
@given(
    st.lists(CHUNKS, max_size=12), st.booleans(), st.booleans(), st.lists(st.integers(0, 3000), max_size=4)
)
def test_however_it_is_cut_a_stream_becomes_what_parsing_makes_of_it(
    chunks: list[dict[str, Any]], ascii_only: bool, wants_usage: bool, cuts: list[int]
) -> None:
    stream = wire(chunks, ascii_only=ascii_only)
    expected, answer = slowly(stream, wants_usage=wants_usage)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    streaming = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=wants_usage)
    assert b"".join(map(streaming.feed, pieces)) == expected
    assert streaming.answer.complete
    joining = Relay(Answer("chat.completions", "mine"), streams=False, wants_usage=wants_usage)
    assert b"".join(map(joining.feed, pieces)) == b""
    assert joining.answer.whole() == answer.whole()


FOREIGN = st.fixed_dictionaries(
    {
        "delta": st.fixed_dictionaries(
            {}, optional={name: TEXTS | st.none() for name in ("content", "reasoning")}
        )
    },
    optional={"finish_reason": st.sampled_from(["", None]), "index": st.sampled_from([0, None, 1])},
)
ENDS = st.sampled_from([b"\n\n", b"\r\n\r\n", b" \n\n"])
BEGINNINGS = st.sampled_from([b"data: ", b"data:", b": comment\ndata: ", b"event: x\r\ndata: "])


@given(
    st.lists(st.tuples(FOREIGN, BEGINNINGS, ENDS), max_size=8),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\n", b": hello\n\n"]),
    st.booleans(),
    st.lists(st.integers(0, 2000), max_size=4),
)
def test_whatever_a_server_leaves_out_a_stream_joins_to_its_whole_answer(
    sent: list[tuple[dict[str, Any], bytes, bytes]], first: bytes, done: bool, cuts: list[int]
) -> None:
    made = [before + json.dumps({"choices": [choice]}).encode() + after for choice, before, after in sent]
    made.append(
        b'data: {"choices": [{"delta": null, "finish_reason": "stop"}]}'
    )  # without an empty line after it
    stream = first + b"".join(made) + (b"\n\ndata: [DONE]" if done else b"")
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    streaming, joining = (
        Relay(Answer("chat.completions", "mine", "id", lambda: 1.0), streams=streams, wants_usage=False)
        for streams in (True, False)
    )
    told = [event for part in [*map(streaming.feed, pieces), streaming.finish()] for event in _chunks(part)]
    assert b"".join([*map(joining.feed, pieces), joining.finish()]) == b""
    assert streaming.broken is joining.broken is None
    whole = joining.answer.whole()
    deltas = [event["choices"][0]["delta"] for event in told]
    message = whole["choices"][0]["message"]
    assert "".join(delta.get("content", "") for delta in deltas) == (message["content"] or "")
    assert "".join(delta.get("reasoning", "") for delta in deltas) == message.get("reasoning", "")
    assert [event["choices"][0]["finish_reason"] for event in told][-1:] == ["stop"]
    meant = [choice["delta"] for choice, *_ in sent if choice.get("index") != 1]
    assert (message["content"] or "") == "".join(delta.get("content") or "" for delta in meant)


def _chunks(part: bytes) -> list[dict[str, Any]]:
    return [json.loads(event[6:]) for event in part.split(b"\n\n") if event]


def _count_parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The data of the events that are parsed from now on."""
    parsed: list[bytes] = []
    take = Answer.take

    def counted(self: Answer, data: bytes) -> dict[str, Any] | None:
        parsed.append(data)
        return take(self, data)

    monkeypatch.setattr(Answer, "take", counted)
    return parsed


def test_tokens_in_one_frame_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = _count_parsed(monkeypatch)
    relay = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=False)
    words = [chunk({"content": f' word{number} \\"é'}) for number in range(1000)]
    relay.feed(wire(words, ascii_only=True))
    assert len(parsed) == 4  # with a role, without one, the finish reason, the end mark


@pytest.mark.parametrize(
    "odd",
    [
        b'data: {"error": {"message": "x"}}\n\n',
        b"data: [1]\n\n",
        b"data: {]\n\n",
        b'data: {"choices": 1}\n\n',
    ],
)
def test_what_came_before_a_break_is_still_sent(odd: bytes) -> None:
    good = [to_event(chunk({"content": text})) for text in ("one", "two")]
    relay = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=False)
    sent = relay.feed(b"".join([*good, odd]))
    assert sent.count(b"data: ") == 2
    assert relay.broken is not None
    assert not relay.answer.complete


@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("text", [b"\x00", b"\x01", b"\n", b"\\x", b"\\u12g4", b'"', b"\\", b'a"\n"b'])
def test_what_is_no_json_string_does_not_slip_through_in_a_frame(text: bytes, behind: int) -> None:
    relay = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=False)
    mark = b"MARK"
    event = b"data: " + json.dumps(chunk({"content": "MARK"})).encode() + b"\n\n"
    assert relay.feed(event * 2).count(mark) == 2
    assert relay.feed(event + event.replace(mark, text) + event * behind).count(b"data:") == 1
    assert relay.broken is not None


def test_nulls_beside_the_text_do_not_keep_it_from_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SGLang and vLLM send them."""
    parsed = _count_parsed(monkeypatch)
    relay = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=False)
    extra = {"role": None, "reasoning_content": None, "tool_calls": None}
    sent = relay.feed(b"".join(to_event(chunk({"content": str(n)} | extra)) for n in range(100)))
    assert sent.count(b"data: ") == 100
    assert len(parsed) == 1


def test_an_answer_that_does_not_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_stream, "MAX_EVENT", 100)
    relay = Relay(Answer("chat.completions", "mine"), streams=False, wants_usage=False)
    relay.feed(b"{" + b" " * 90)
    assert relay.broken is None
    relay.feed(b" " * 10)
    assert "without end" in str(relay.broken)


def test_nothing_behind_the_end_mark_is_sent() -> None:
    relay = Relay(Answer("chat.completions", "mine"), streams=True, wants_usage=False)
    text, end = to_event(chunk({"content": "one"})), chunk({})
    end["choices"][0]["finish_reason"] = "stop"
    ended = relay.feed(text + text + to_event(end) + DONE + text + text)
    assert ended.count(b'"one"') == 2
    assert relay.answer.complete
