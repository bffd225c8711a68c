"""What the other dialects cost compared with a chat: `python -m tests.perf.translation [ROUNDS] [--profile]`.

In one process and without a socket. To the time of the first event a dialect adds the time that its request takes
longer to read and rewrite than a chat that says the same; to each event, what its exchange does with it. Times are
the processor's, medians of alternating rounds. With `--profile` the same is shown by function, by cProfile.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from draftd.profiles import Profile, ProfileSet
from draftd.web.client import JSON, ClientExchange, RequestHead
from draftd.web.dialects.messages_request import chat_request as chat_of_messages
from draftd.web.dialects.responses_request import chat_request as chat_of_responses
from draftd.web.dialects.responses_request import repeated
from draftd.web.router import Dialect, Routed, RoutingTable, route
from draftd.web.translation import TRANSLATED

MAX_FIRST, MAX_EVENT = 0.2e-3, 20e-6  # seconds: the goals
EVENTS = 1000
TABLE = RoutingTable(ProfileSet({"m": Profile(name="m", model="org/m")}), "m")
CHATS: dict[Dialect, Callable[[Any], dict[str, Any]]] = {
    "messages": chat_of_messages,
    "responses": chat_of_responses,
}


class Nowhere(ClientExchange):
    """A client that takes everything."""

    begun = True

    def __init__(self) -> None:
        super().__init__(RequestHead("POST", "/", "/", {}, 0))
        self.headers["x-request-id"] = "0" * 32

    async def body(self) -> bytes:
        return b""

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        pass

    async def write(self, data: bytes) -> None:
        pass

    async def finish(self, data: bytes) -> None:
        pass

    def cut(self) -> None:
        pass

    def abort(self) -> None:
        pass


def messages(turns: int) -> dict[str, Any]:
    """A request as Claude Code sends it after so many turns: 60 KB of tools and system text, 3 KB a turn."""
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string", "description": "Where it is. " * 20}},
    }
    tools = [
        {"name": f"Tool{n}", "description": "What it does. " * 120, "input_schema": schema} for n in range(18)
    ]
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
        {"type": "text", "text": "You are an agent.\n" * 1200, "cache_control": {"type": "ephemeral"}},
    ]
    said: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Fix it."}]}]
    for n in range(turns):
        call = {"type": "tool_use", "id": f"toolu_{n}", "name": "Tool1", "input": {"path": f"src/file{n}.py"}}
        said.append({"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]})
        result = {
            "type": "tool_result",
            "tool_use_id": f"toolu_{n}",
            "content": "def f(x):\n    return x\n" * 120,
        }
        said.append({"role": "user", "content": [result]})
    return {
        "model": "m",
        "max_tokens": 32000,
        "stream": True,
        "system": system,
        "tools": tools,
        "messages": said,
    }


def responses(turns: int) -> dict[str, Any]:
    """A request as Codex sends it after so many turns: 40 KB of tools and instructions, 3 KB a turn."""
    schema = {
        "type": "object",
        "properties": {"cmd": {"type": "string", "description": "What to run. " * 20}},
    }
    tools = [
        {"type": "function", "name": f"tool{n}", "description": "What it does. " * 100, "parameters": schema}
        for n in range(10)
    ]
    items: list[dict[str, Any]] = [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Rules.\n" * 2000}],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
    ]
    for n in range(turns):
        arguments = json.dumps({"cmd": f"cat file{n}.py"})
        items.append(
            {"type": "function_call", "call_id": f"call_{n}", "name": "tool1", "arguments": arguments}
        )
        output = "def f(x):\n    return x\n" * 120
        items.append({"type": "function_call_output", "call_id": f"call_{n}", "output": output})
    return {
        "model": "m",
        "stream": True,
        "store": False,
        "instructions": "You are an agent.",
        "tools": tools,
        "input": items,
    }


REQUESTS: dict[Dialect, Callable[[int], dict[str, Any]]] = {"messages": messages, "responses": responses}


def routed(raw: bytes, dialect: Dialect) -> Routed:
    made = route(raw, dialect, TABLE)
    assert isinstance(made, Routed), made
    return made


def chunk(text: str) -> bytes:
    """An event as the relay passes it on."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


async def stream(dialect: Dialect, body: dict[str, Any]) -> float:
    """Send EVENTS through an exchange; returns the seconds that it takes."""
    exchange = TRANSLATED[dialect](Nowhere())
    exchange.repeated = repeated(body) | {"model": "m"} if dialect == "responses" else {}
    chunks = [chunk(f" word{number}") for number in range(EVENTS)]
    began = time.thread_time()
    for each in chunks:
        await exchange.write(each)
    return time.thread_time() - began


def timed(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def first_event(dialect: Dialect, turns: int, rounds: int) -> None:
    body = REQUESTS[dialect](turns)
    raw, chat = json.dumps(body).encode(), json.dumps(CHATS[dialect](body)).encode()
    pairs = [
        (timed(lambda: routed(raw, dialect)), timed(lambda: routed(chat, "chat.completions")))
        for _ in range(rounds)
    ]
    own, beside = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    added = median(one - other for one, other in pairs)
    verdict = "reached" if added < MAX_FIRST else "not reached"
    print(
        f"{dialect:10} {len(raw) / 1000:4.0f} KB, {turns:2} turns: {own * 1e3:.3f} ms, a chat {beside * 1e3:.3f}: "
        f"adds {added * 1e3:.3f} ms to the first event (goal {MAX_FIRST * 1e3:g}): {verdict}"
    )


def events(dialect: Dialect, rounds: int) -> None:
    body = REQUESTS[dialect](0)
    each = median(asyncio.run(stream(dialect, body)) for _ in range(rounds)) / EVENTS
    verdict = "reached" if each < MAX_EVENT else "not reached"
    print(f"{dialect:10} {each * 1e6:.1f} us an event (goal {MAX_EVENT * 1e6:g}): {verdict}")


def profile(work: Callable[[], object]) -> None:
    profiler = cProfile.Profile()
    profiler.runcall(work)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(14)


def main() -> None:
    rounds = next((int(word) for word in sys.argv[1:] if word.isdigit()), 300)
    for dialect in REQUESTS:
        for turns in (0, 10, 50):
            first_event(dialect, turns, rounds)
        events(dialect, max(5, rounds // 20))
    if "--profile" in sys.argv:
        for dialect, request in REQUESTS.items():
            body = request(10)
            raw = json.dumps(body).encode()
            profile(lambda raw=raw, dialect=dialect: [routed(raw, dialect) for _ in range(rounds)])  # type: ignore[misc]
            profile(lambda body=body, dialect=dialect: asyncio.run(stream(dialect, body)))  # type: ignore[misc]


if __name__ == "__main__":
    main()
