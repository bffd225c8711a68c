"""One generation, timed as any OpenAI client would see it, and what the server says about its drafts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from draftd.errors import DraftdError
from draftd.ops.http import HttpClient, RefusedError, error_message, in_words
from draftd.protocol import DRAFTERS_OF_TEXT

MAX_SILENCE = 900.0  # seconds in which not one byte comes; a worker may have to load its model first


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer as it comes. `drafter` is who drafted it, None if nobody did, or the server does not
    say; `thought` marks reasoning, which is not part of what the model says.
    """

    text: str
    drafter: str | None = None
    thought: bool = False


Show = Callable[[Piece], object]


def _unseen(_: Piece) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """Draft tokens proposed and accepted in one generation."""

    proposed: int
    accepted: int

    @property
    def ratio(self) -> float | None:
        """None if nothing was proposed."""
        return self.accepted / self.proposed if self.proposed else None


@dataclass(frozen=True, slots=True)
class Generation:
    """One streamed answer. `first_token` and `seconds` (to the last token) are seconds from the sending of the
    request. `counted` if the server said how many tokens there were; otherwise each event counts as one. `timings`
    are in llama.cpp's words, where the server tells them.
    """

    text: str
    tokens: int
    counted: bool
    first_token: float
    seconds: float
    finish_reason: str | None
    timings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drafted(self) -> Drafted | None:
        """None where nothing was proposed, or the server does not say."""
        proposed, accepted = self.timings.get("draft_n"), self.timings.get("draft_n_accepted")
        if isinstance(proposed, int) and isinstance(accepted, int):
            return Drafted(proposed, accepted)
        return None

    @property
    def tokens_per_second(self) -> float:
        """Over the whole answer, including reading the prompt.

        Not from the first token on: drafting delivers a whole round at once, so that the tokens of its first
        round would take no time.
        """
        return self.tokens / self.seconds


class OpenAIServer:
    """A server at `url`, with or without /v1 at its end; `certificate` is what HttpClient takes. Raises DraftdError
    for whatever goes wrong there.
    """

    def __init__(self, url: str, api_key: str = "", certificate: str = "") -> None:
        root = url.rstrip("/").removesuffix("/v1")
        self.root = root if "://" in root else f"http://{root}"
        self._http = HttpClient(self.root, api_key, certificate)

    def models(self) -> list[str] | None:
        """The names it serves; None if it answers, but has no such list."""
        body = self._get("/v1/models")
        try:
            return [str(model["id"]) for model in body["data"]]
        except (KeyError, TypeError):
            return None

    def resolve(self, name: str) -> str:
        """The model that `name`, which may be an alias, stands for. Raises DraftdError for an unknown name."""
        return str(self._http.json(f"/v1/models/{quote(name)}")["id"])

    def worker(self, name: str) -> dict[str, Any] | None:
        """The row of /api/status that serves `name`; None if this is not draftd, or has no such row."""
        rows = self._get("/api/status")
        try:
            return next((row for row in rows["workers"] if row["name"] == name), None)
        except (KeyError, TypeError):
            return None

    def generate(self, body: Mapping[str, Any], show: Show = _unseen) -> Generation:
        """Stream the answer to `body`; `show` gets each piece of its text as it comes."""
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        began = time.monotonic()
        with self._http.open(
            "/v1/chat/completions", method="POST", body=streamed, timeout=MAX_SILENCE
        ) as answer:
            return timed(_events(answer), began, show)

    def _get(self, path: str) -> Any:
        """What is at `path`; None if nothing is there, or no JSON."""
        try:
            return self._http.json(path)
        except (RefusedError, OSError, HTTPException, ValueError):
            return None


class EmptyAnswerError(DraftdError):
    """The model ended its answer before the first word."""


def _events(answer: Any) -> Iterator[bytes]:
    try:
        for line in answer:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    except (OSError, HTTPException) as error:
        raise DraftdError(f"the stream broke off: {in_words(error)}") from error


def timed(events: Iterator[bytes], began: float, show: Show = _unseen) -> Generation:
    """Read a stream to its end mark. Raises DraftdError for one that has none, tells of an error or is empty."""
    parts: list[str] = []
    usage = finish_reason = None
    timings: Any = None
    pieces = 0
    first = last = began
    for data in events:
        if data == b"[DONE]":
            break
        chunk = _chunk(data)
        usage = chunk.get("usage") or usage
        timings = chunk.get("timings") or timings
        for choice in chunk.get("choices") or ():
            finish_reason = choice.get("finish_reason") or finish_reason
            if not (came := _pieces(choice)):
                continue
            last = time.monotonic()
            first = last if not pieces else first
            pieces += 1
            for piece in came:
                parts.append(piece.text)
                show(piece)
    else:
        raise DraftdError("the stream ended without its end mark: the answer is cut short")
    if not pieces:
        raise EmptyAnswerError("the answer has no text")
    tokens = (usage or {}).get("completion_tokens")
    return Generation(
        "".join(parts),
        tokens or pieces,
        bool(tokens),
        first - began,
        last - began,
        finish_reason,
        timings if isinstance(timings, dict) else {},
    )


def _pieces(choice: Mapping[str, Any]) -> list[Piece]:
    """What a person reads: the reasoning of a model that shows it, and text."""
    delta, told = choice.get("delta") or {}, choice.get(DRAFTERS_OF_TEXT) or {}
    thought = str(delta.get("reasoning_content") or delta.get("reasoning") or "")
    said = str(delta.get("content") or "")
    return [
        *_told(thought, told.get("reasoning"), thought=True),
        *_told(said, told.get("content"), thought=False),
    ]


def _told(text: str, drafted: list[dict[str, Any]] | None, *, thought: bool) -> list[Piece]:
    pieces = drafted or ([{"text": text}] if text else [])
    return [Piece(piece["text"], piece.get("drafter"), thought) for piece in pieces]


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise DraftdError("the stream holds an event that is not JSON")
    if error := chunk.get("error"):
        raise DraftdError(f"the stream ended in an error: {error_message(error)}")
    return chunk
