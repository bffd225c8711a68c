"""LineSplitter: the same bytes give the same lines, bounded and harmless."""

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.telemetry.lines import CUT, LineSplitter, escape

LIMIT = 8


def split(*chunks: bytes, limit: int = LIMIT) -> list[str]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.flush()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"10%\r20%\r30%\n", ["10%", "20%", "30%"]),
        (b"\n\r\n\r\r\na\n\n", ["a"]),
        (b"a\tb", ["a\tb"]),
        (b" \n", [" "]),
        (b"\x00a\x1b[2J", ["\\x00a\\x1b[2J"]),
        (b"\x7f", ["\\x7f"]),
        ("\x9b2J".encode(), ["\\x9b2J"]),
        ("a\u2028b".encode(), ["a\\u2028b"]),
        ("\u202etxt".encode(), ["\\u202etxt"]),
        (b"\xff\xfe", ["\\xff\\xfe"]),
        ("é…".encode(), ["é…"]),
        ("é".encode()[:1], ["\\xc3"]),
        (b"12345678\n9", ["12345678", "9"]),
        (b"123456789\nz", ["12345678" + CUT, "z"]),
        (b"123456789" * 9 + b"\rz", ["12345678" + CUT, "z"]),
        ("1234567é\nz".encode(), ["1234567" + CUT, "z"]),
        (b"1234567\xff9", ["1234567\\xff" + CUT]),
    ],
)
def test_table(data: bytes, lines: list[str]) -> None:
    assert split(data) == lines
    assert split(*(bytes([byte]) for byte in data)) == lines


# Bytes that matter are frequent, so that short examples meet breaks, halves of characters and cuts.
telling = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\x00", b"\x1b", b"a", "é".encode(), "…".encode(), "😀".encode(), b"\xff", b"\xe2"]
    ),
    max_size=40,
).map(b"".join)


@given(
    data=telling | st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    limit=st.integers(1, 20),
)
def test_any_chunking_of_the_same_bytes_gives_the_same_lines(
    data: bytes, cuts: list[int], limit: int
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(edges)]
    assert split(*chunks, limit=limit) == split(data, limit=limit)


@given(data=telling | st.binary())
def test_lines_are_bounded_nonempty_and_harmless(data: bytes) -> None:
    for line in split(data):
        assert line
        assert len(line) <= 4 * LIMIT + len(CUT)
        assert line == escape(line)
        assert all(char == "\t" or ord(char) >= 0x20 for char in line)
        assert line.splitlines() == [line]


@given(text=st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp"))))
def test_ordinary_text_passes_unchanged(text: str) -> None:
    assert split(text.encode(), limit=10**6) == ([text] if text else [])


def test_a_cut_line_comes_out_at_once_and_only_once() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"1234") == []
    assert splitter.feed(b"5") == ["1234" + CUT]
    assert splitter.feed(b"6789") == []
    assert splitter.feed(b"0\nnext\n") == ["next"]


def test_flush_leaves_a_new_splitter() -> None:
    splitter = LineSplitter(4)
    splitter.feed(b"12345")
    assert splitter.flush() == []
    assert splitter.feed(b"ok\n") == ["ok"]


@given(data=telling | st.binary())
def test_invalid_bytes_read_as_backslashreplace_writes_them(data: bytes) -> None:
    data = data.replace(b"\n", b"").replace(b"\r", b"")
    assert "".join(split(data, limit=10**6)) == escape(data.decode("utf-8", "backslashreplace"))


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        LineSplitter(limit)


def test_100_mb_without_a_break_is_fast_and_small() -> None:
    chunk, splitter = b"x" * 65536, LineSplitter()
    start = time.process_time()
    lines = [line for _ in range(1600) for line in splitter.feed(chunk)]
    spent = time.process_time() - start
    assert lines == ["x" * 8192 + CUT]
    assert spent < 1, f"{spent:.2f} s of processor time"

    tracemalloc.start()
    try:
        for _ in range(160):
            splitter.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "chunk",
    [b"\n" * 65536, b"x\ny\r" * 16384, (b"\xff" * 8191 + b"\n") * 8, (b"\x00" * 8191 + b"\n") * 8],
    ids=["breaks", "short", "no UTF-8", "NUL"],
)
def test_the_worst_chunks_take_no_more_than_a_scan(chunk: bytes) -> None:
    splitter = LineSplitter()
    start = time.process_time()
    for _ in range(32):  # 2 MB
        splitter.feed(chunk)
    spent = time.process_time() - start
    assert spent < 1.5, f"{spent:.2f} s of processor time"
