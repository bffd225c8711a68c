"""A fast stand-in for mlx_lm.server: its HTTP (1.0, one request per connection), and answers without a model.

It keeps the connection only of clients that ask it directly, so that in every row the client has one connection,
and the difference is all that a proxy adds, including the proxy's own connection to the worker.

A streamed answer is written one event at a time, as mlx_lm.server does, but without any time between them; one of
up to BURST tokens is a single write, since the time from its first token to its last is the model's and not the
proxy's. Takes --port.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
from typing import Any, cast

import uvloop

BURST = 16  # tokens
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
STREAM = re.compile(rb'"stream": ?true')
TOKENS = re.compile(rb'"max_tokens": ?(\d+)')
CLOSES = re.compile(rb"^[^\r]* HTTP/1\.0\r|\r\nconnection: close", re.IGNORECASE)
JSON_HEAD = b"HTTP/1.%d 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
STREAM_HEAD = b"HTTP/1.%d 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n%s\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-6f2c1f0e-5c1b-4b0e-9d5b-2f6a3f0f7c11",
        "system_fingerprint": "0.32.2-0.32.4-Linux-x86_64",
        "object": "chat.completion.chunk",
        "model": "default_model",
        "created": 1764000000,
        "choices": choices,
    } | more


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


TOKEN = event(
    chunk([{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": " word"}}])
)


@functools.cache
def ending(tokens: int) -> bytes:
    last = chunk([{"index": 0, "finish_reason": "length", "delta": {"role": "assistant"}}])
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    return event(last) + event(chunk([], object="chat.completion", usage=usage)) + b"data: [DONE]\n\n"


@functools.cache
def whole(tokens: int) -> bytes:
    message = {"role": "assistant", "content": " word" * tokens}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]
    return json.dumps(chunk(choices, object="chat.completion", usage=usage)).encode()


class Connection(asyncio.Protocol):
    """One request at a time, and its answer."""

    def __init__(self) -> None:
        self._received = b""
        self._left = 0
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._keep = not CLOSES.search(head)
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        asked = TOKENS.search(body)
        self._tokens = self._left = int(asked[1]) if asked else 1
        if not STREAM.search(body):
            answer = whole(self._tokens)
            self._transport.write(JSON_HEAD % (self._keep, len(answer), answer))
            self._close()
            return
        head = STREAM_HEAD % (self._keep, CHUNKED if self._keep else b"")
        if self._tokens <= BURST:
            self._end(head + self._framed(TOKEN * self._tokens + ending(self._tokens)))
        else:
            self._transport.write(head)
            self._next()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self._keep else data

    def _next(self) -> None:
        """Write one event, and come back after the other streams have had their turn."""
        if self._left <= 0 or not self._writable:
            return
        self._left -= 1
        if self._left:
            self._transport.write(self._framed(TOKEN))
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._end(self._framed(TOKEN + ending(self._tokens)))

    def _end(self, last: bytes) -> None:
        """Write the last of a stream, and close unless the client keeps the connection."""
        self._transport.write(last + (b"0\r\n\r\n" if self._keep else b""))
        self._close()

    def _close(self) -> None:
        if not self._keep:
            self._transport.close()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._next()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[sys.argv.index("--port") + 1])))
