"""From the bytes of a worker's stream to the bytes for its client, cheaply. Pure.

Theory of operation. The events of one answer differ in a single JSON string, the text of a token. So the first
of a kind is parsed and written anew (`Answer`), and leaves a `_Frame`: the bytes around its text, as they came
and as they go out. Events in that very frame are not parsed: their texts are cut out and put into the client's
frame. Whatever fits no frame is parsed again.

It is exact: what is cut out must be a strict JSON string in ASCII, so it can hold no part of the frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from draftd.web import json_codec
from draftd.web.answer_stream import Answer, BrokenAnswerError, EventSplitter, is_usage_only, to_event

_END = b"\n\n"  # of an event
_PLAIN = rb"[ !#-\[\]-~]*+"
_STRING = rb'"' + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb')*+"'
_is_string = re.compile(_STRING).fullmatch
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|text)": ?(' + _STRING + rb")")
_ONE_TEXT = ({"content"}, {"reasoning"}, {"reasoning_content"})


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands before and after the text of an event, without its end: `theirs` as it comes, `ours` as it is
    sent.
    """

    theirs: tuple[bytes, bytes]
    ours: tuple[bytes, bytes]
    kind: str

    def text_of(self, event: bytes) -> bytes | None:
        """The JSON string in an event of this frame; None for any other event."""
        before, after = self.theirs
        text = event[len(before) : -len(after)]
        fits = event.startswith(before) and event.endswith(after) and _is_string(text)
        return text if fits else None

    def for_the_client(self, texts: list[bytes]) -> bytes:
        """The events with these texts as they are sent."""
        before, after = self.ours
        return before + (after + _END + before).join(texts) + after + _END


def _frame_of(event: bytes, chunk: dict[str, Any], sent: bytes) -> _Frame | None:
    """The frame that `event` leaves, sent as `sent`; None if anything but one text may count in the next one."""
    choices = chunk.get("choices") or []
    if len(choices) != 1 or choices[0].get("finish_reason"):
        return None
    delta = choices[0].get("delta")
    if delta and set(delta) not in _ONE_TEXT:
        return None
    theirs = _around_the_text(event)
    ours = theirs if sent is event else _around_the_text(sent)
    kind = next(iter(delta)) if delta else "text"
    return _Frame(theirs, ours, kind) if theirs and ours else None


def _around_the_text(event: bytes) -> tuple[bytes, bytes] | None:
    found = list(_TEXT.finditer(event))
    return (event[: found[0].start(1)], event[found[0].end(1) : -len(_END)]) if len(found) == 1 else None


class Relay:
    """One streamed answer on its way to a client that streams as well, or else to `answer.whole()`."""

    def __init__(self, answer: Answer, *, streams: bool, wants_usage: bool) -> None:
        self.answer = answer
        self._streams = streams
        self._wants_usage = wants_usage
        self._splitter = EventSplitter()
        self._frame: _Frame | None = None
        self.tokens = False  # whether the newest bytes held any
        self.broken: BrokenAnswerError | None = None

    def feed(self, data: bytes) -> bytes:
        """The events for a client that streams, up to where `data` breaks the answer; without the end mark."""
        self.tokens = False
        out: list[bytes] = []
        try:
            out.extend(self._events(self._splitter.take_rest() + data))
        except BrokenAnswerError as error:
            self.broken = error
        return b"".join(out)

    def _events(self, data: bytes) -> Iterator[bytes]:
        *events, rest = data.split(_END)
        texts: list[bytes] = []
        for event in events:
            text = self._frame.text_of(event) if self._frame else None
            if text is not None:
                texts.append(text)
                continue
            yield self._pass(texts)
            texts = []
            if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
                yield self._parse(event[6:])
            else:
                yield from map(self._parse, self._splitter.feed(event + _END))
        yield self._pass(texts)
        yield from map(self._parse, self._splitter.feed(rest))

    def _pass(self, texts: list[bytes]) -> bytes:
        if not self._frame or not texts:
            return b""
        self.tokens = True
        if self._streams:
            return self._frame.for_the_client(texts)
        self.answer.add_texts(self._frame.kind, json_codec.loads(b"[" + b",".join(texts) + b"]"))
        return b""

    def _parse(self, data: bytes) -> bytes:
        chunk = None if self.answer.done else self.answer.take(data)
        if chunk is None:
            return b""
        self.tokens |= bool(chunk.get("choices"))
        event = b"data: " + data + _END
        sent = to_event(chunk) if self._streams else event
        self._frame = _frame_of(event, chunk, sent) or self._frame
        wanted = self._streams and (self._wants_usage or not is_usage_only(chunk))
        return sent if wanted else b""
