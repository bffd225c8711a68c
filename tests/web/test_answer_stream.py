"""Server-sent events of a worker: split however they arrive, checked, and joined again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.web import answer_stream as events
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.answer_stream import EventSplitter, to_event


def split(*chunks: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [data for chunk in chunks for data in splitter.feed(chunk)]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    ends = [*sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# --- EventSplitter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b": keepalive 1/2\n\ndata: a\n\n", [b"a"]),
        (b": first\ndata: a\n: last\n\n", [b"a"]),
        (b"event: delta\nid: 5\nretry: 9\ndata: a\n\n", [b"a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"\n\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"data:\n\n", []),
        (b"data\n\n", []),
        (b"database: a\n\n", []),
        (b"data: a", []),
        (b"data: a\n", []),
        ("data: é…\n\n".encode(), ["é…".encode()]),
    ],
)
def test_a_stream_gives_its_events_even_byte_by_byte(stream: bytes, found: list[bytes]) -> None:
    assert split(stream) == found
    assert split(*(bytes([byte]) for byte in stream)) == found


pieces = st.sampled_from([b"data: ", b"data:", b": ", b"a", b"{}", b"\n", b"\n\n", b"\r\n", b"\r", b"\xc3"])


@given(st.lists(pieces, max_size=30).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_where_the_stream_is_cut_does_not_matter(stream: bytes, at: list[int]) -> None:
    assert split(*cut(stream, at)) == split(stream)


def test_an_event_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT", 100)
    splitter = EventSplitter()
    assert splitter.feed(b"data: " + b"x" * 94) == []
    assert splitter.feed(b"\n\ndata: y\n\n") == [b"x" * 94, b"y"]
    assert splitter.feed(b"x" * 60) == []
    with pytest.raises(BrokenAnswerError, match="without end"):
        splitter.feed(b"x" * 41)


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())) | st.just({"half": "\ud83d"}))
def test_an_event_is_read_back_as_it_was_written(fields: dict[str, Any]) -> None:
    (data,) = split(to_event(fields))
    assert json.loads(data) == fields
