"""Pieces of tool calls: whatever indexes and ids a server gives them, each ends up in the right call."""

from __future__ import annotations

import itertools
import json
from typing import Any, Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from draftd.web.answer_models import Message
from draftd.web.tool_calls import ToolCalls

Style = Literal["right", "zero", "none"]

arguments = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), min_size=1, max_size=3)
meant = st.lists(st.tuples(st.sampled_from("fg"), arguments), min_size=1, max_size=4)


def pieces(
    calls: list[tuple[str, dict[str, Any]]], cuts: list[int], indexes: Style, *, ids: bool, again: bool
) -> list[dict[str, Any]]:
    """The calls as a server sends them. With `again` it repeats the name, and the id, in each piece."""
    sent = []
    for number, (name, values) in enumerate(calls):
        text = json.dumps(values)
        edges = [0, *sorted({cut % len(text) for cut in cuts} - {0}), len(text)]
        for start, end in itertools.pairwise(edges):
            first = start == 0 or again
            function = {"name": name if first else None, "arguments": text[start:end]}
            piece: dict[str, Any] = {"function": function, "type": "function"}
            if indexes != "none":
                piece["index"] = number if indexes == "right" else 0
            if ids and first:
                piece["id"] = f"id-{number}"
            sent.append(piece)
    return sent


def taken(sent: list[dict[str, Any]], chunks: list[int]) -> tuple[ToolCalls, list[dict[str, Any]]]:
    """The calls, and what the client was told, when that many pieces come in each chunk."""
    calls, told = ToolCalls("seed"), []
    while sent:
        count = chunks.pop() if chunks else 1
        now, sent = sent[:count], sent[count:]
        read = msgspec.convert({"tool_calls": now}, Message).tool_calls
        assert read is not None
        told += calls.take(now, read)
    return calls, told


def joined(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client that knows nothing but the protocol makes of it."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in told:
        index, function = piece["index"], piece["function"]
        if index not in calls:
            calls[index] = {**piece, "function": dict(function)}
            del calls[index]["index"]
        else:
            assert set(piece) == {"index", "function"}
            assert set(function) == {"arguments"}
            calls[index]["function"]["arguments"] += function["arguments"]
    return [calls[index] for index in sorted(calls)]


@given(
    meant,
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from(("right", "zero", "none")),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 3), max_size=3),
)
def test_whatever_a_server_leaves_out_or_repeats_the_calls_are_those_that_were_meant(
    calls: list[tuple[str, dict[str, Any]]],
    cuts: list[int],
    indexes: Style,
    ids: bool,
    again: bool,
    chunks: list[int],
) -> None:
    if indexes == "none" and not ids:
        again, chunks = False, []  # nothing would tell a piece of a call from another call
    made, told = taken(pieces(calls, cuts, indexes, ids=ids, again=again), chunks)
    whole = made.whole()
    assert [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in whole] == calls
    assert len({one["id"] for one in whole}) == len(calls)
    if ids:
        assert [one["id"] for one in whole] == [f"id-{number}" for number in range(len(calls))]
    assert joined(told) == whole


def test_an_id_that_comes_late_changes_nothing() -> None:
    """By then the client has been told another one."""
    sent = [
        {"index": 0, "function": {"name": "f"}},
        {"index": 0, "id": "late", "function": {"arguments": "{}"}},
    ]
    made, told = taken(sent, [])
    function = {"name": "f", "arguments": "{}"}
    assert joined(told) == made.whole() == [{"id": "call_seed0", "type": "function", "function": function}]


def test_a_name_that_comes_late_is_told() -> None:
    sent = [{"index": 0, "id": "a"}, {"index": 0, "function": {"name": "f", "arguments": "{}"}}]
    made, told = taken(sent, [])
    assert [piece["function"] for piece in told] == [
        {"name": "", "arguments": ""},
        {"name": "f", "arguments": "{}"},
    ]
    assert made.whole()[0]["function"] == {"name": "f", "arguments": "{}"}
