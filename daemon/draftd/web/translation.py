"""Stands between a client that speaks another dialect and the proxy, which knows OpenAI's completions.

Theory of operation. A request is translated where it is parsed, in `router`. To the proxy, the classes here are a
client's exchange like any other: it writes a chat completion to them, and each event, or the whole answer, is
translated on its way to the client. The only other thing in the daemon that knows of the dialect is the form of
errors.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from draftd.errors import DraftdError, WorkerError
from draftd.web import json_codec
from draftd.web.answer_stream import DONE, EVENT_END, Frame, frame_of
from draftd.web.client import JSON, ClientExchange
from draftd.web.dialects.messages_answer import Event, MessageAnswer, whole_message
from draftd.web.dialects.responses_answer import ResponseAnswer, whole_response
from draftd.web.router import Dialect

_PING: Event = {"type": "ping"}


class Translated(ClientExchange):
    """Passes on to `inner` all that is not translated."""

    def __init__(self, inner: ClientExchange) -> None:
        self._inner = inner
        super().__init__(inner.head)
        self.headers = inner.headers
        self.record = inner.record

    @property
    def begun(self) -> bool:
        return self._inner.begun

    async def body(self) -> bytes:
        return await self._inner.body()

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        await self._inner.answer(status, body, content_type)

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)

    async def finish(self, data: bytes) -> None:
        await self._inner.finish(data)

    def cut(self) -> None:
        self._inner.cut()

    def abort(self) -> None:
        self._inner.abort()


class EventsExchange(Translated, ABC):
    """An exchange whose answer is made of events in place of chunks.

    Most chunks differ from the one before only in their text: those are not parsed, see `answer_stream`.
    """

    def __init__(self, inner: ClientExchange) -> None:
        super().__init__(inner)
        self._frame: Frame | None = None

    @property
    @abstractmethod
    def _answer(self) -> MessageAnswer | ResponseAnswer:
        """What has come so far."""

    @abstractmethod
    def _waiting(self) -> Iterable[Event]:
        """Events that say that the request is being worked on."""

    async def write(self, data: bytes) -> None:
        await self._inner.write(b"".join(self._events(data)))

    async def finish(self, data: bytes) -> None:
        await self._inner.finish(b"".join((*self._events(data), _sent(self._answer.finish()))))

    def _events(self, data: bytes) -> Iterator[bytes]:
        for event in data.removesuffix(DONE).split(EVENT_END):
            text = self._frame.text_of(event) if self._frame else None
            told = self._answer.take_text(self._frame.kind, text) if self._frame and text else None
            if told is not None:
                yield told
            elif event.startswith(b"data: "):
                yield self._parse(event)
            elif event.startswith(b":"):
                yield _sent(self._waiting())

    def _parse(self, event: bytes) -> bytes:
        chunk = json_codec.loads(event[6:])
        if not chunk.get("usage"):
            whole = event + EVENT_END
            self._frame = frame_of(whole, chunk, whole) or self._frame
        return _sent(self._answer.take(chunk))


class MessagesExchange(EventsExchange):
    """A request for `/v1/messages`."""

    @cached_property
    def _answer(self) -> MessageAnswer:
        return MessageAnswer(self.headers["x-request-id"])

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        message = whole_message(json_codec.loads(body), self._answer)
        await self._inner.answer(status, json_codec.dumps(message), content_type)

    def _waiting(self) -> Iterable[Event]:
        return (_PING,)


class ResponsesExchange(EventsExchange):
    """A request for `/v1/responses`.

    Comments, which say that the request is being worked on, become events: Codex gives up after five minutes
    without one.
    """

    def __init__(self, inner: ClientExchange) -> None:
        super().__init__(inner)
        inner.failed = self._failed

    @cached_property
    def _answer(self) -> ResponseAnswer:
        return ResponseAnswer(self.headers["x-request-id"], int(time.time()), self.repeated)

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        response = whole_response(json_codec.loads(body), self._answer)
        await self._inner.answer(status, json_codec.dumps(response), content_type)

    def _failed(self, error: DraftdError) -> bytes:
        return _sent(self._answer.fail(error))

    def _waiting(self) -> Iterable[Event]:
        return self._answer.begin()


class CountExchange(Translated):
    """A request for `/v1/messages/count_tokens`."""

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        usage: Any = json_codec.loads(body).get("usage")
        if not usage:
            raise WorkerError("the worker did not say how many tokens it read", status=502, code="bad_answer")
        await self._inner.answer(
            status, json.dumps({"input_tokens": usage["prompt_tokens"]}).encode(), content_type
        )


# What the proxy goes on with in place of a client's exchange; a dialect that is not here needs no translation.
TRANSLATED: Mapping[Dialect | None, type[Translated]] = {
    "messages": MessagesExchange,
    "count_tokens": CountExchange,
    "responses": ResponsesExchange,
}


def _sent(events: Iterable[Event]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json_codec.dumps(event)) for event in events
    )
