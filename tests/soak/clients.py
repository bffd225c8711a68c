"""Clients that ask, wait, read and leave, and know how each of their requests ended."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

import aiohttp

from tests.harness import Answer

MAX_TOKENS = 60  # that a request asks for
LIMIT = 90.0  # seconds; a request that is open longer counts as lost
PROMPTS = (
    "What is speculative decoding?",
    "Tell me about the presets.",
    "What does draftd do?",
    "What is a draft model?",
)
# The status that the daemon counts for a stream that had begun when the error came, by the error's code.
STATUS_OF_CODE = {"worker_lost": 502, "bad_answer": 502, "queue_full": 429}


class End(StrEnum):
    """How a request ended for its client."""

    COMPLETE = "complete"
    ERROR = "error"
    LEFT = "left"
    LOST = "lost"


@dataclass(frozen=True)
class Outcome:
    """One request. `status` is what the daemon should have counted, None if the client cannot know."""

    marker: str
    streamed: bool
    end: End
    status: int | None = None
    completion_tokens: int = 0
    detail: str = ""


async def client(
    http: aiohttp.ClientSession, url: str, models: tuple[str, ...], random: Random, *, over: asyncio.Event
) -> list[Outcome]:
    """Ask one thing after the other until it is `over`; returns what became of each request."""
    outcomes = []
    while not over.is_set():
        patience = random.uniform(0.05, 2.0) if random.random() < 0.3 else LIMIT
        outcomes.append(await _ask(http, url, _body(models, random), patience))
        await asyncio.sleep(random.uniform(0, 0.2))  # time to think
    return outcomes


def _body(models: tuple[str, ...], random: Random) -> dict[str, Any]:
    marker = f"marker-{random.getrandbits(64):016x}"
    body: dict[str, Any] = {
        "model": random.choice(models),
        "messages": [{"role": "user", "content": f"{random.choice(PROMPTS)} ({marker})"}],
        "max_tokens": random.randint(1, MAX_TOKENS),
        "stream": random.random() < 0.6,
    }
    return body | {"stream_options": {"include_usage": True}} if body["stream"] else body


async def _ask(http: aiohttp.ClientSession, url: str, body: dict[str, Any], patience: float) -> Outcome:
    marker = body["messages"][0]["content"].rpartition("(")[2].rstrip(")")
    try:
        async with asyncio.timeout(patience):
            answer = await _post(http, url, body)
        end, status, tokens, detail = judge(answer, streamed=body["stream"])
    except TimeoutError:
        end, status, tokens, detail = End.LEFT if patience < LIMIT else End.LOST, None, 0, "no answer"
    except (aiohttp.ClientError, OSError) as error:
        end, status, tokens, detail = End.LOST, None, 0, repr(error)
    return Outcome(marker, body["stream"], end, status, tokens, detail)


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Answer:
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        return await Answer.of(response)


Verdict = tuple[End, int | None, int, str]


def judge(answer: Answer, *, streamed: bool) -> Verdict:
    """How a request ended that got this answer: the end, the status to be counted, tokens, and why."""
    try:
        if answer.status != 200:
            return _judge_error(answer)
        return _judge_stream(answer) if streamed else _judge_whole(answer)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return End.LOST, None, 0, f"neither an answer nor an error: {error!r} in {answer.text[-300:]!r}"


def _judge_stream(answer: Answer) -> Verdict:
    """Complete with a finish reason and the end mark; or an error event, and then a cut connection."""
    *before, last = answer.events
    if answer.cut:
        code = last["error"]["code"]
        return End.ERROR, STATUS_OF_CODE.get(code, 503), 0, code
    if last != "[DONE]" or not any(e["choices"] and e["choices"][0]["finish_reason"] for e in before):
        raise ValueError("a stream without its end")
    return End.COMPLETE, 200, before[-1]["usage"]["completion_tokens"], ""


def _judge_whole(answer: Answer) -> Verdict:
    if answer.cut or not answer.json["choices"][0]["finish_reason"]:
        raise ValueError("half an answer")
    return End.COMPLETE, 200, answer.json["usage"]["completion_tokens"], ""


def _judge_error(answer: Answer) -> Verdict:
    return End.ERROR, answer.status, 0, json.loads(answer.text)["error"]["code"]
