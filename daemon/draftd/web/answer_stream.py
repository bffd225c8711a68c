"""A worker's stream on its way to the client: cut into events, checked, renamed, or put together. Pure.

Theory of operation. A worker is asked for a stream, and may answer in one piece all the same: the first byte tells.
The events of one answer differ in a single JSON string, the text of a token. So `Relay` parses the first event of a
kind and writes it anew (by `Answer`), and keeps its `Frame`: the bytes around the text, as they come and as they
go out. Later events with the same bytes around their text are not parsed: the text is cut out and put into the
client's frame. An event that fits no frame is parsed again. This is exact: what is cut out must be a strict JSON
string in ASCII, so it cannot hold a part of the frame.

Servers differ in how they write events. Lines may end with a carriage return, `data:` may lack its space, the type
of an event may say that it is an error, or only one newline may stand between events: all that goes the slow way.
So does the end of an answer that has no empty line after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from draftd.errors import DraftdError
from draftd.web import json_codec
from draftd.web.answer import Answer
from draftd.web.answer_models import BrokenAnswerError, NotJSONError

MAX_EVENT = 16 * 2**20  # bytes; larger than any real event, small enough to bound memory
DONE = b"data: [DONE]\n\n"
EVENT_END = b"\n\n"
_any_event_end = re.compile(rb"(?:\r?\n){2}")
_PLAIN = rb"[ !#-\[\]-~]*+"
_STRING = rb'"' + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb')*+"'
_is_string = re.compile(_STRING).fullmatch
_begins_with_string = re.compile(_STRING).match
_are_strings = re.compile(_STRING + rb"(?:\n" + _STRING + rb")*+").fullmatch  # no string holds a newline
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|text)": ?(' + _STRING + rb")")
_ONE_TEXT = ({"content"}, {"reasoning"}, {"reasoning_content"})
_BOM = b"\xef\xbb\xbf"
# A chunk with no more than these has nothing for a client that does not want the usage.
_HEAD_FIELDS = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "timings"}


class EventSplitter:
    """Byte chunks in, the data of whole events out; comments are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes. Raises BrokenAnswerError if one grows without end."""
        buffer = self._rest + chunk
        *whole, self._rest = _any_event_end.split(buffer) if b"\r" in buffer else buffer.split(EVENT_END)
        if len(self._rest) > MAX_EVENT:
            raise BrokenAnswerError("an event without end")
        return [data for event in whole if (data := _data_of(event))]

    def take_rest(self) -> bytes:
        """Take out what has come of an unfinished event; feed it again, in front of the next bytes."""
        rest, self._rest = self._rest, b""
        return rest


def _data_of(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.replace(b"\r\n", b"\n").split(b"\n")
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    if any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in lines):
        return _as_error(data)
    errors = [line[6:] for line in lines if line.startswith(b"error:")]
    return data or (_as_error(b"\n".join(errors)) if errors else b"")


def _as_error(data: bytes) -> bytes:
    """The data of an event whose type says that it is an error, in the form of errors that say it in their data."""
    try:
        json_codec.loads(data)
    except (ValueError, RecursionError):
        data = json.dumps(data.decode("utf-8", "replace").strip()).encode()
    return b'{"error": {"error": %b}}' % data


def to_event(chunk: dict[str, Any]) -> bytes:
    """A chunk as one event, in the printable part of ASCII, which is what the text of a frame is in."""
    try:
        data = json_codec.in_utf8(chunk)
    except UnicodeEncodeError:  # half of a surrogate pair
        data = b"\xff"
    if not data.isascii() or b"\x7f" in data:
        data = json.dumps(chunk, separators=(",", ":")).encode()
    return b"data: " + data + EVENT_END


class Frame(msgspec.Struct, frozen=True):
    """The bytes before and after the text of an event, without the event's end: `theirs` as they come, `ours` as
    they are sent.
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

    def take(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """The JSON strings of events of this frame that stand at this place, and the place behind the last."""
        before, after = self.theirs[0], self.theirs[1] + EVENT_END
        if not data.startswith(before, at):
            return [], at
        *texts, last = data[at + len(before) :].split(after + before)
        behind = len(data) - len(last) - len(before)
        text = _begins_with_string(last)
        if text and last.startswith(after, text.end()):
            texts.append(text[0])
            behind = len(data) - len(last) + text.end() + len(after)
        lines = b"\n".join(texts)
        are_texts = _are_strings(lines) and lines.count(b"\n") == len(texts) - 1
        return (texts, behind) if are_texts else ([], at)

    def for_the_client(self, texts: list[bytes]) -> bytes:
        """The events with these texts as they are sent."""
        before, after = self.ours
        return before + (after + EVENT_END + before).join(texts) + after + EVENT_END


def frame_of(event: bytes, chunk: dict[str, Any], sent: bytes) -> Frame | None:
    """The frame of `event`, which goes out as `sent`; None if more than the one text of the next could matter.

    Both are given with their ends.
    """
    choices = chunk.get("choices") or []
    if len(choices) != 1 or choices[0].get("finish_reason") or choices[0].get("logprobs"):
        return None
    delta = choices[0].get("delta")
    if delta and set(delta) not in _ONE_TEXT:
        return None
    kind = next(iter(delta)) if delta else "text"
    text = (delta or choices[0]).get(kind)
    theirs = _around(text, event)
    ours = theirs if sent is event else _around(text, sent)
    return Frame(theirs, ours, kind) if theirs and ours else None


def _around(text: Any, event: bytes) -> tuple[bytes, bytes] | None:
    """What stands around the text of an event. What looks like one may be another field."""
    found = _TEXT.search(event)
    if found is None or _TEXT.search(event, found.end()) or json_codec.loads(found[1]) != text:
        return None
    return event[: found.start(1)], event[found.end(1) : -len(EVENT_END)]


class Relay:
    """Takes one answer to a client that wants a stream, or collects it for `answer.whole()`; both if it `is_kept`.

    `tokens` tells whether the newest bytes held any. `broken` is what is wrong with the answer, if anything is:
    that it is not one, or an error that the worker reports.
    """

    def __init__(self, answer: Answer, *, streams: bool, wants_usage: bool, is_kept: bool = False) -> None:
        self.answer = answer
        self._streams = streams
        self._collects = is_kept or not streams
        self._wants_usage = wants_usage
        self._splitter = EventSplitter()
        self._frame: Frame | None = None
        self._start: bytearray | None = bytearray()  # until it is known to be a stream
        self._in_one_piece = False
        self._usage_sent = False
        # The last chunk for a client that does not want the usage: the timings of the chunk after it belong in it.
        self._last: dict[str, Any] | None = None
        self.tokens = False
        self.broken: BrokenAnswerError | DraftdError | None = None

    def feed(self, data: bytes) -> bytes:
        """The events for a client that wants a stream, without the end mark, up to where the answer breaks."""
        if self._start is not None:
            data = self._begin(data)
        return self._collect(self._events(self._splitter.take_rest() + data))

    def finish(self) -> bytes:
        """The last events of an answer whose bytes have ended without an end mark."""
        return self._collect(self._remainder())

    def end(self) -> bytes:
        """The end of a complete stream: the usage, if it is wanted and came with something else, and the mark."""
        lacks_usage = self._wants_usage and not self._usage_sent and self.answer.usage is not None
        return self._release() + (to_event(self.answer.usage_chunk()) if lacks_usage else b"") + DONE

    def _collect(self, events: Iterator[bytes]) -> bytes:
        self.tokens = False
        out: list[bytes] = []
        try:
            out.extend(events)
        except (BrokenAnswerError, DraftdError) as error:
            self.broken = error
            out.append(self._release())
        return b"".join(out)

    def _begin(self, data: bytes) -> bytes:
        """The first bytes of a stream, without a byte order mark; nothing until it is known to be one."""
        assert self._start is not None, "it has begun already"
        self._start += data
        if len(self._start) > MAX_EVENT:
            self.broken = BrokenAnswerError("an answer without end")
        if self._in_one_piece:
            return b""
        begun = bytes(self._start).removeprefix(_BOM)
        first = begun.lstrip()
        self._in_one_piece = first.startswith(b"{")
        if self._in_one_piece or _BOM.startswith(first):
            return b""
        self._start = None
        return begun

    def _remainder(self) -> Iterator[bytes]:
        with suppress(NotJSONError):  # it broke off in the middle
            if self._start is None:
                yield from self._split(self._splitter.take_rest() + EVENT_END)
            elif whole := bytes(self._start).removeprefix(_BOM).strip():
                yield from map(self._told, self.answer.take_whole(whole))
        yield self._release()

    def _events(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while True:
            if self._frame and not self.answer.done:
                texts, at = self._frame.take(data, at)
                yield self._pass(self._frame, texts)
            end = data.find(EVENT_END, at)
            if end < 0:
                break
            event, at = data[at:end], end + len(EVENT_END)
            if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
                yield self._parse(event[6:])
            else:
                yield from self._split(event + EVENT_END)
        yield from self._split(data[at:])

    def _split(self, data: bytes) -> Iterator[bytes]:
        for event in self._splitter.feed(data):
            try:
                yield self._parse(event)
            except NotJSONError:
                if b"\n" not in event:
                    raise
                yield from map(self._parse, event.split(b"\n"))  # events with one newline between them

    def _pass(self, frame: Frame, texts: list[bytes]) -> bytes:
        if not texts:
            return b""
        self.tokens = True
        if self._collects:
            self.answer.add_texts(frame.kind, json_codec.loads(b"[" + b",".join(texts) + b"]"))
        return self._release() + frame.for_the_client(texts) if self._streams else b""

    def _parse(self, data: bytes) -> bytes:
        chunk = None if self.answer.done else self.answer.take(data)
        if chunk is None:
            return self._release()
        event = b"data: " + data + EVENT_END
        sent = to_event(chunk) if self._streams else event
        self._frame = frame_of(event, chunk, sent) or self._frame
        return self._told(chunk, sent)

    def _told(self, chunk: dict[str, Any], sent: bytes = b"") -> bytes:
        """What the client gets of a chunk; `sent` are its bytes, if they are known."""
        wanted = self._is_wanted(chunk)
        if not self._streams or self._wants_usage:
            return (sent or to_event(chunk)) if wanted else b""
        if chunk["choices"] and chunk["choices"][0]["finish_reason"]:
            released, self._last = self._release(), chunk
            return released
        if wanted:
            return self._release() + (sent or to_event(chunk))
        if self._last is not None and "timings" in chunk:
            self._last["timings"] = chunk["timings"]
        return b""

    def _release(self) -> bytes:
        last, self._last = self._last, None
        return b"" if last is None else to_event(last)

    def _is_wanted(self, chunk: dict[str, Any]) -> bool:
        """Whether the client gets the chunk. Many clients look for a choice in each but the one with the usage."""
        if chunk["choices"]:
            self.tokens = True
            return self._streams
        if chunk.get("usage") is None:
            return self._streams and not chunk.keys() <= _HEAD_FIELDS
        self._usage_sent |= self._wants_usage
        return self._streams and self._wants_usage
