"""Puts an answer's text together, token by token: content, reasoning and tool calls, up to a stop text. Pure.

A stop text ends an answer where it stands in the content, the text that the client shows and stores. It has no
effect in reasoning, where models weigh the very words that are to end the answer: `"stop": ["Question:"]` would end
most of them before they begin. Nor has it any in a tool call: half a call is of no use to anybody. OpenAI's own
reasoning models take no `stop` at all. /v1/completions continues a text: there everything is content, marks too.

A tool call that cannot be parsed is content: the client gets what the model wrote, with the marks around it. So is
one that was cut off before its end mark: many of mlx_lm's parsers would leave out the arguments that are not whole,
and a client would call the tool without them. A client that takes one call at most (`parallel_tool_calls: false`)
has its answer ended after the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from draftd.engine.answers.channels import NORMAL, REASONING, TOOL, Channels, Piece
from draftd.engine.answers.drafted_text import DraftedText
from draftd.engine.answers.drafted_text import Piece as Drafted
from draftd.engine.answers.stop_texts import StopTexts
from draftd.engine.answers.token_spans import TokenSpans


@dataclass(slots=True)
class Part:
    """What there is of an answer since the last part. `tokens` are those of the content, each with its place;
    `drafted` is the content, and `drafted_reasoning` the reasoning, by who drafted it, where that is wanted.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[tuple[int, Any]] = field(default_factory=list)
    drafted: list[Drafted] = field(default_factory=list)
    drafted_reasoning: list[Drafted] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.tool_calls or self.tokens)


@dataclass(slots=True)
class _OpenCall:
    raw: str = ""
    text: str = ""  # without its marks


class AnswerText:
    """`parse` returns the calls in a tool call's text, None if it is malformed; `parse_open` those of one without
    its end mark, and is told whether the answer was cut off there. `spans` keeps track of tokens, and `drafted` of
    who drafted them. With `one_call` the first call is the end.
    """

    def __init__(
        self,
        channels: Channels,
        stop_texts: Sequence[str],
        parse: Callable[[str], list[dict[str, Any]] | None],
        parse_open: Callable[[str, bool], list[dict[str, Any]] | None],
        spans: TokenSpans[Any] | None = None,
        drafted: DraftedText | None = None,
        *,
        one_call: bool = False,
    ) -> None:
        self._channels = channels
        self._stops = StopTexts(stop_texts)
        self._parse = parse
        self._parse_open = parse_open
        self._spans = spans
        self._drafted = drafted
        self._one_call = one_call
        self._call: _OpenCall | None = None
        self._part = Part()
        self.made_calls = False

    @property
    def stopped(self) -> bool:
        """Whether a stop text has ended the answer, or the only call that it may make."""
        return self._stops.stopped or (self._one_call and self.made_calls)

    @property
    def stop_text(self) -> str | None:
        """The stop text that has ended the answer."""
        return self._stops.matched

    def feed(self, text: str, token: Any = None, drafter: str | None = None) -> None:
        """Take the next token, the text that it brought, and who drafted it."""
        if self._drafted is not None:
            self._drafted.token(drafter, len(text))
        if self._spans is not None:
            self._spans.token(token, len(text))
        for piece in self._channels.feed(text):
            self._take(piece)

    def finish(self, *, cut: bool = False) -> None:
        """Take the end of the text: what was held back turns out to begin nothing. `cut`: the model would have gone
        on, so a call that is still open is not whole.
        """
        for piece in self._channels.finish():
            self._take(piece)
        self._end_call(closed=False, cut=cut)
        self._show(self._stops.finish())

    def take(self) -> Part:
        """Return what there is since the last time."""
        part, self._part = self._part, Part()
        if self._spans is not None:
            part.tokens = self._spans.take()
        return part

    def _take(self, piece: Piece) -> None:
        if self.stopped:
            return
        if piece.channel == TOOL:
            self._call = self._call or _OpenCall()
            self._call.raw += piece.text
            self._call.text += "" if piece.mark else piece.text
        elif piece.mark:
            if self._call:
                self._call.raw += piece.text
                self._end_call()
            else:
                self._place(piece.text, content=False)
        elif piece.channel == NORMAL:
            self._show_content(piece.text)
        else:
            drafted = self._place(piece.text, content=False)
            if piece.channel == REASONING:
                self._part.reasoning += piece.text
                self._part.drafted_reasoning += drafted

    def _end_call(self, *, closed: bool = True, cut: bool = False) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        calls = self._parse(call.text) if closed else self._parse_open(call.text, cut)
        if calls is None:
            self._show_content(call.raw)
        else:
            self._place(call.raw, content=False)
            self._part.tool_calls += calls[:1] if self._one_call else calls
            self.made_calls = True

    def _show_content(self, text: str) -> None:
        self._place(text, content=True)
        self._show(self._stops.feed(text))

    def _show(self, text: str) -> None:
        self._part.content += text
        if self._drafted is not None:
            self._part.drafted += self._drafted.show(text)
        if self._spans is not None:
            self._spans.show(len(text))

    def _place(self, text: str, *, content: bool) -> list[Drafted]:
        """Note what the next piece of the model's text is; return who drafted it if it is not content."""
        if self._spans is not None:
            self._spans.text(len(text), content=content)
        if self._drafted is None:
            return []
        if content:
            self._drafted.content(len(text))
            return []
        return self._drafted.other(text)
