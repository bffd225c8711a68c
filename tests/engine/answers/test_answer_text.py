"""An answer's text out of tokens: stop texts, reasoning, tool calls, and the tokens that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest
from mlx_lm.generate import TextStateMachine
from mlx_lm.tool_parsers import json_tools

from draftd.engine.answers.answer_text import AnswerText, Part
from draftd.engine.answers.channels import NORMAL, Channels
from draftd.engine.answers.drafted_text import DraftedText, Piece
from draftd.engine.answers.token_spans import TokenSpans
from draftd.engine.answers.tool_calls import parse

MARKS = {
    NORMAL: [("<think>", "reasoning"), ("<tool_call>", "tool")],
    "reasoning": [("</think>", NORMAL), ("<tool_call>", "tool")],
    "tool": [("</tool_call>", NORMAL)],
    "header": [("to=user", NORMAL)],
}
CALL = '<tool_call>{"name": "f"}</tool_call>'


def text_of(
    stops: Sequence[str] = (),
    initial: str = NORMAL,
    marks: Any = MARKS,
    drafted: DraftedText | None = None,
    *,
    one_call: bool = False,
) -> AnswerText:
    return AnswerText(
        Channels(marks and TextStateMachine(marks), initial),
        stops,
        lambda text: parse(json_tools.parse_tool_call, text, None),
        lambda text, cut: None if cut else parse(json_tools.parse_tool_call, text, None),
        TokenSpans(),
        drafted,
        one_call=one_call,
    )


def whole(answer: AnswerText, *tokens: str) -> Part:
    """The answer that these tokens make; each token is its own text."""
    for token in tokens:
        if not answer.stopped:
            answer.feed(token, token)
    answer.finish()
    return answer.take()


def names(part: Part) -> list[str]:
    return [call["function"]["name"] for call in part.tool_calls]


def test_content_reasoning_and_calls_are_told_apart() -> None:
    part = whole(text_of(), "a<think>b", "</think>c", CALL, "d", CALL)
    assert (part.content, part.reasoning, names(part)) == ("acd", "b", ["f", "f"])


def test_a_part_is_what_came_since_the_last_and_holds_nothing_that_may_be_a_mark_or_a_stop() -> None:
    answer = text_of(["STOP"])
    contents = []
    for token in ("a<th", "ere", " ST", "ILL STO", "P", "x"):
        answer.feed(token, token)
        contents.append(answer.take().content)
    assert contents == ["a", "<there", " ", "STILL ", "", ""]
    assert answer.stopped


@pytest.mark.parametrize("bad", ["[1]", "{", '{"name": 5}', '{"arguments": {}}', "null", ""])
def test_a_malformed_call_is_the_text_that_the_model_wrote(bad: str) -> None:
    answer = text_of()
    part = whole(answer, "Well: <tool", f"_call>{bad}</tool_call>", " done")
    assert (part.content, part.tool_calls) == (f"Well: <tool_call>{bad}</tool_call> done", [])
    assert not answer.made_calls


def test_a_call_that_is_cut_off_is_text_and_a_whole_one_without_its_mark_a_call() -> None:
    assert whole(text_of(), '<tool_call>{"name": "re').content == '<tool_call>{"name": "re'
    answer = text_of()
    assert names(whole(answer, '<tool_call>{"name": "f"}')) == ["f"]
    assert answer.made_calls


def test_the_only_call_ends_the_answer() -> None:
    answer = text_of(["STOP"], one_call=True)
    part = whole(answer, "a ST", f"{CALL}b", CALL, "c")
    assert (part.content, names(part), answer.stopped) == ("a ST", ["f"], True)
    both = [{"function": {"name": name}} for name in "fg"]
    several = AnswerText(
        Channels(TextStateMachine(MARKS)), [], lambda _: both, lambda *_: both, one_call=True
    )
    assert names(whole(several, CALL)) == ["f"]
    bad = text_of(one_call=True)
    part = whole(bad, "<tool_call>{</tool_call>", CALL)
    assert (part.content, names(part)) == ("<tool_call>{</tool_call>", ["f"])


def test_what_was_held_back_at_the_end_is_text() -> None:
    assert whole(text_of(["STOP"]), "a <", "to").content == "a <to"
    assert whole(text_of(["STOP"]), "a ST").content == "a ST"


@pytest.mark.parametrize(
    ("tokens", "content", "reasoning", "stopped"),
    [
        (["a ST", "OP b"], "a ", "", True),
        (["<think>STOP</think>a"], "a", "STOP", False),
        (["<think>ST</think>OP"], "OP", "ST", False),
        (['<tool_call>{"name": "f", "arguments": {"x": "STOP"}}</tool_call>a'], "a", "", False),
        (["<tool_call>STOP</tool_call>a"], "<tool_call>", "", True),  # malformed, so it is content
        (["aSTOP<think>b</think>", CALL], "a", "", True),
    ],
)
def test_a_stop_text_ends_content_and_nothing_else(
    tokens: list[str], content: str, reasoning: str, stopped: bool
) -> None:
    answer = text_of(["STOP"])
    part = whole(answer, *tokens)
    assert (part.content, part.reasoning, answer.stopped) == (content, reasoning, stopped)


def test_what_is_for_no_client_is_not_told() -> None:
    part = whole(text_of(initial="header"), "header ", "to=user", "a")
    assert (part.content, part.reasoning) == ("a", "")


def test_the_tokens_of_content_are_told_with_their_places() -> None:
    part = whole(text_of(["STOP"]), "a", "<think>", "b", "</think>", "cd", "eST", "OP")
    assert part.tokens == [(0, "a"), (1, "cd"), (3, "eST")]
    malformed = whole(text_of(), "a", "<tool_call>", "5", "</tool_call>")
    assert [token for _, token in malformed.tokens] == ["a", "<tool_call>", "5", "</tool_call>"]
    assert whole(text_of(), "a", CALL).tokens == [(0, "a")]


@pytest.mark.fault(207)
@pytest.mark.parametrize("cut", [False, True])
def test_a_call_that_was_cut_off_is_content_and_one_that_the_model_ended_is_none(cut: bool) -> None:
    answer = text_of()
    opened = CALL.removesuffix("</tool_call>")
    answer.feed(f"a{opened}", "token")
    answer.finish(cut=cut)
    part = answer.take()
    assert (part.content, names(part)) == ((f"a{opened}", []) if cut else ("a", ["f"]))


def test_tokens_come_no_sooner_than_their_text() -> None:
    answer = text_of(["STOP"])
    came = []
    for token in ("a", "ST", "ILL"):
        answer.feed(token, token)
        came.append(answer.take().tokens)
    assert came == [[(0, "a")], [], [(1, "ST"), (3, "ILL")]]


Drafted = list[tuple[str, str | None]]


def drafted(answer: AnswerText, *tokens: tuple[str, str | None]) -> tuple[Drafted, Drafted]:
    """Who drafted which piece of content and reasoning, of tokens with their drafters."""
    for text, drafter in tokens:
        answer.feed(text, None, drafter)
    answer.finish()
    part = answer.take()
    assert "".join(piece.text for piece in part.drafted) == part.content
    assert "".join(piece.text for piece in part.drafted_reasoning) == part.reasoning
    return _joined(part.drafted), _joined(part.drafted_reasoning)


def _joined(pieces: list[Piece]) -> Drafted:
    """Without the borders within a drafter's text: a token that was held back in part comes in two pieces."""
    runs = groupby(pieces, key=lambda piece: piece.drafter)
    return [("".join(piece.text for piece in run), drafter) for drafter, run in runs]


def test_each_piece_of_the_text_is_its_drafters() -> None:
    def answer() -> AnswerText:
        return text_of(["STOP"], drafted=DraftedText())

    tokens = [("a<think>b", "model"), ("c</thi", None), ("nk>d S", "lookup"), ("T", "model"), ("ILL", None)]
    said, thought = drafted(answer(), *tokens)
    assert said == [("a", "model"), ("d S", "lookup"), ("T", "model"), ("ILL", None)]
    assert thought == [("b", "model"), ("c", None)]
    ended, _ = drafted(answer(), ("a ", None), ("ST", "model"), ("OP", "lookup"), ("b", None))
    assert ended == [("a ", None)]
    malformed, _ = drafted(answer(), ("x<tool", "model"), ("_call>5", None), ("</tool_call>y", "grammar"))
    assert malformed == [
        ("x<tool", "model"),
        ("_call>5", None),
        ("</tool_call>y", "grammar"),
    ]
    called, _ = drafted(answer(), ("a", None), (CALL, "model"), ("b", "lookup"))
    assert called == [("a", None), ("b", "lookup")]
