"""Which tokens a client sees, when, and where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.answers.token_spans import TokenSpans


def test_a_token_is_shown_with_its_first_character() -> None:
    spans: TokenSpans[str] = TokenSpans()
    spans.token("abc", 3)
    spans.text(3, content=True)
    assert spans.take() == []
    spans.show(1)
    assert spans.take() == [(0, "abc")]
    spans.show(2)
    spans.token("d", 1)
    spans.text(1, content=True)
    spans.show(1)
    assert spans.take() == [(3, "d")]


def test_what_is_not_content_is_never_shown_and_takes_no_room() -> None:
    spans: TokenSpans[str] = TokenSpans()
    for token, length, content in (("a", 1, True), ("<t>", 3, False), ("thought", 7, False), ("b", 1, True)):
        spans.token(token, length)
        spans.text(length, content=content)
    spans.show(2)
    assert spans.take() == [(0, "a"), (1, "b")]


def test_a_token_that_is_partly_content_is_shown() -> None:
    spans: TokenSpans[str] = TokenSpans()
    spans.token("</t>a", 5)
    spans.text(4, content=False)
    spans.text(1, content=True)
    spans.show(1)
    assert spans.take() == [(0, "</t>a")]


def test_tokens_that_bring_no_text_go_with_the_next_that_does() -> None:
    spans: TokenSpans[str] = TokenSpans()
    spans.token("x", 1)
    spans.token("first half", 0)
    spans.text(1, content=True)
    spans.show(1)
    assert spans.take() == [(0, "x")]
    spans.token("second half", 1)
    spans.text(1, content=True)
    spans.show(1)
    assert spans.take() == [(1, "first half"), (1, "second half")]
    spans.token("half", 0)
    spans.token(None, 1)  # the end of the text shows it by a replacement character
    spans.text(1, content=True)
    spans.show(1)
    assert spans.take() == [(2, "half")]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.data())
def test_it_does_not_matter_when_text_is_known_and_shown(lengths: list[int], data: st.DataObject) -> None:
    total = sum(lengths)
    content = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    shown = data.draw(st.integers(0, sum(content)))
    at_once: TokenSpans[int] = TokenSpans()
    one_by_one: TokenSpans[int] = TokenSpans()
    for number, length in enumerate(lengths):
        at_once.token(number, length)
        one_by_one.token(number, length)
    late = []
    for number, is_content in enumerate(content):
        at_once.text(1, content=is_content)
        one_by_one.text(1, content=is_content)
        if is_content and sum(content[:number]) < shown:
            one_by_one.show(1)
        late += one_by_one.take()
    at_once.show(shown)
    assert at_once.take() == late
