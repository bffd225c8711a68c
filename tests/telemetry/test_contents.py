"""The contents of requests: nothing unless it is switched on, bounded, and gone when it is switched off."""

from __future__ import annotations

from draftd.telemetry.contents import MAX_ENTRIES, MAX_TEXT, MAX_TOTAL, Content, Contents


def switched_on() -> Contents:
    made = Contents()
    made.switch(on=True)
    return made


def test_nothing_is_kept_unless_it_is_switched_on() -> None:
    contents = Contents()
    contents.take_request("1", b"secret")
    contents.take_answer("1", "secret")
    assert (contents.holds("1"), contents.of("1")) == (False, None)


def test_a_request_is_kept_with_its_answer_until_it_is_switched_off() -> None:
    contents = switched_on()
    contents.take_request("1", b"asked \xff")
    assert contents.of("1") == Content("asked \ufffd")
    contents.take_answer("1", "answered")
    contents.take_answer("2", "of a request from before")
    assert (contents.of("1"), contents.of("2")) == (Content("asked \ufffd", "answered"), None)
    contents.switch(on=False)
    contents.take_answer("1", "that came later")
    contents.switch(on=True)
    assert contents.of("1") is None


def test_of_what_is_too_long_both_ends_are_kept() -> None:
    contents = switched_on()
    contents.take_request("1", b"a" + b"-" * 10 * MAX_TEXT + b"z")
    contents.take_answer("1", "a" + "-" * MAX_TEXT + "z")
    content = contents.of("1")
    assert content is not None
    for text, length in ((content.request, 10 * MAX_TEXT + 2), (content.answer or "", MAX_TEXT + 2)):
        assert (text[0], text[-1]) == ("a", "z")
        assert f"… {length - MAX_TEXT} characters left out …" in text
        assert len(text) < MAX_TEXT + 100


def test_the_oldest_go_first() -> None:
    contents = switched_on()
    count = MAX_TOTAL // (MAX_TEXT // 2) + 4
    for number in range(count):
        contents.take_request(str(number), b"-" * (MAX_TEXT // 2))
    assert [number for number in range(count) if contents.of(str(number)) is None] == [0, 1, 2, 3]
    contents.take_answer("4", "-" * (MAX_TEXT // 2))  # it is the newest now, and displaces another
    assert [number for number in range(4, count) if contents.of(str(number)) is None] == [5]


def test_requests_without_a_text_are_bounded_too() -> None:
    contents = switched_on()
    for number in range(MAX_ENTRIES + 2):
        contents.take_request(str(number), b"")
    assert [contents.holds(name) for name in ("0", "1", "2")] == [False, False, True]
