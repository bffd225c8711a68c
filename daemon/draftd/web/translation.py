"""Stands between a client that speaks another dialect and the proxy, which knows chats in OpenAI's form.

Theory of operation. To the proxy this is a client's exchange like any other: it reads the request of a chat from
it, and writes the answer to it. The request is translated before, and each event of the answer after; nothing else
in the daemon knows of the dialect but the errors' form. The answer is always a stream here. A client that wants it
in one piece gets what the events have made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from draftd.errors import WorkerError
from draftd.web import json_codec
from draftd.web.answer_stream import DONE
from draftd.web.client import JSON, ClientExchange
from draftd.web.dialects.messages_answer import Event, MessageAnswer
from draftd.web.dialects.messages_request import chat_request, count_request
from draftd.web.request_body import parse_body

_EVENT_END = b"\n\n"
_PING: Event = {"type": "ping"}


class Translated(ClientExchange):
    """Passes on to `inner` all that is not translated."""

    def __init__(self, inner: ClientExchange) -> None:
        self._inner = inner
        super().__init__(inner.head)
        self.headers = inner.headers

    @property
    def begun(self) -> bool:
        return self._inner.begun

    @property
    def profile(self) -> str | None:
        """The inner one's."""
        return self._inner.profile

    @profile.setter
    def profile(self, name: str | None) -> None:
        self._inner.profile = name

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


class MessagesExchange(Translated):
    """A request for `/v1/messages`."""

    def __init__(self, inner: ClientExchange) -> None:
        super().__init__(inner)
        self._answer = MessageAnswer()
        self._streams = False

    async def body(self) -> bytes:
        """The request as one for a chat. Raises RequestError."""
        asked = parse_body(await self._inner.body())
        chat = chat_request(asked)
        self._streams = bool(asked.get("stream"))
        return json_codec.dumps(chat)

    async def write(self, data: bytes) -> None:
        events = _sent(self._events(data))
        if self._streams and events:
            await self._inner.write(events)

    async def finish(self, data: bytes) -> None:
        events = _sent([*self._events(data), *self._answer.finish()])
        if self._streams:
            await self._inner.finish(events)
        else:
            await self._inner.answer(200, json_codec.dumps(self._answer.message))

    def _events(self, data: bytes) -> Iterable[Event]:
        for event in data.removesuffix(DONE).split(_EVENT_END):
            if event.startswith(b"data: "):
                yield from self._answer.take(json_codec.loads(event[6:]))
            elif event.startswith(b":"):
                yield _PING


class CountExchange(Translated):
    """A request for `/v1/messages/count_tokens`."""

    async def body(self) -> bytes:
        """The request as one for a chat that only counts. Raises RequestError."""
        return json_codec.dumps(count_request(parse_body(await self._inner.body())))

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        usage: Any = json_codec.loads(body).get("usage")
        if not usage:
            raise WorkerError("the worker did not say how many tokens it read", status=502, code="bad_answer")
        await self._inner.answer(
            status, json.dumps({"input_tokens": usage["prompt_tokens"]}).encode(), content_type
        )


def _sent(events: Iterable[Event]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json_codec.dumps(event)) for event in events
    )
