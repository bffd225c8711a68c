"""From the bytes of a worker's stream to the bytes for its client, cheaply. Pure.

Theory of operation. The events of one answer differ in a single JSON string, the text of a token. So the first
of a kind is parsed and written anew (`Answer`), and leaves a `_Frame`: the bytes around its text, as they came
and as they go out. Events in that very frame are recognised in a whole read at once: where one ends and the next
begins the frame's halves are replaced by a mark, byte 0, and what matches STRING MARK STRING ... is a run of such
events, whose marks are replaced by the client's halves. Whatever fits no frame is parsed again.

It is exact: a string here is a strict JSON string in ASCII, so it holds neither a bare quote nor a control
character, while the first half holds the one and the second half ends with the other; and bytes that hold marks
of their own are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daemon.web import quick_json
from daemon.web.events import Answer, BrokenAnswerError, EventSplitter, is_usage_only, to_event

_MARK = b"\0"
_PLAIN = rb"[ !#-\[\]-~]*+"
_STRING = rb'"' + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb')*+"'
_RUN = re.compile(_STRING + rb"(?:\x00" + _STRING + rb")*+")
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|text)": ?(' + _STRING + rb")")
_ONE_TEXT = ({"content"}, {"reasoning"}, {"reasoning_content"})


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands before and after the text of an event: `theirs` as it comes, `ours` as it is sent."""

    theirs: tuple[bytes, bytes]
    ours: tuple[bytes, bytes]
    kind: str

    def run(self, data: bytes) -> tuple[bytes, int]:
        """The events in this frame that `data` begins with: their texts, marks between them, and their length."""
        before, after = self.theirs
        if not data.startswith(before) or _MARK in data:
            return b"", 0
        found = _RUN.match(data.replace(after + before, _MARK), len(before))
        if found is None:
            return b"", 0
        run = found[0]
        length = len(before) + len(run) + run.count(_MARK) * (len(after) + len(before) - 1)
        if data.startswith(after, length):
            return run, length + len(after)
        run, mark, last = run.rpartition(
            _MARK
        )  # the last text is that of another kind of event, or not all there
        return (run, length - len(last) - len(before)) if mark else (b"", 0)

    def for_the_client(self, run: bytes) -> bytes:
        """The run's events as they are sent."""
        before, after = self.ours
        return before + run.replace(_MARK, after + before) + after


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
    return (event[: found[0].start(1)], event[found[0].end(1) :]) if len(found) == 1 else None


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
        at = 0
        while (end := data.find(b"\n\n", at)) >= 0:
            run, length = self._frame.run(data[at:]) if self._frame else (b"", 0)
            if self._frame and run:
                yield self._pass(self._frame, run)
                at += length
                continue
            event, at = data[at:end], end + 2
            if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
                yield self._parse(event[6:])
            else:
                yield from map(self._parse, self._splitter.feed(event + b"\n\n"))
        yield from map(self._parse, self._splitter.feed(data[at:]))

    def _pass(self, frame: _Frame, run: bytes) -> bytes:
        self.tokens = True
        if self._streams:
            return frame.for_the_client(run)
        self.answer.add_texts(frame.kind, quick_json.loads(b"[" + run.replace(_MARK, b",") + b"]"))
        return b""

    def _parse(self, data: bytes) -> bytes:
        chunk = None if self.answer.done else self.answer.take(data)
        if chunk is None:
            return b""
        self.tokens |= bool(chunk.get("choices"))
        event = b"data: " + data + b"\n\n"
        sent = to_event(chunk) if self._streams else event
        self._frame = _frame_of(event, chunk, sent) or self._frame
        wanted = self._streams and (self._wants_usage or not is_usage_only(chunk))
        return sent if wanted else b""
