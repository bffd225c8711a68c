"""How much of prompts need not be read again, and where it is kept: in the engine's memory, in files. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from draftd.protocol import OUTCOMES, CacheSize
from draftd.telemetry.figures import MAX_BYTES, count

WINDOW = 50  # requests that the ratio is of


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """What became of a stored prompt: one of OUTCOMES."""

    outcome: str


def cache_size(said: Mapping[str, object]) -> CacheSize:
    """From the engine's record. Raises ValueError for anything missing or impossible."""
    limit = said.get("limit")
    known = isinstance(limit, int) and limit <= MAX_BYTES
    return CacheSize(
        count(said.get("entries")),
        count(said.get("bytes"), MAX_BYTES),
        count(limit, MAX_BYTES) if known else None,
    )


def stored_prompt(said: Mapping[str, object]) -> StoredPrompt:
    """From the engine's record. Raises ValueError for anything else."""
    outcome = said.get("outcome")
    if outcome not in OUTCOMES:
        raise ValueError("no outcome")
    return StoredPrompt(str(outcome))


@dataclass(slots=True)
class Reuse:
    """One profile's prompt tokens, and how many of them were cached; what became of stored prompts."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Count a request's prompt, if the worker told how much of it was cached."""
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self._recent.append((prompt_tokens, cached_tokens))

    def ratio(self) -> float | None:
        """Cached / all tokens of the last prompts; None if there were none."""
        tokens = sum(prompt for prompt, _ in self._recent)
        return sum(cached for _, cached in self._recent) / tokens if tokens else None

    def told(self, size: CacheSize | None) -> dict[str, Any]:
        """As the status shows it, with the cache's `size` where a worker has one."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "ratio": self.ratio(),
            "entries": size.entries if size else None,
            "bytes": size.bytes if size else None,
            "limit_bytes": size.limit if size else None,
            "stored_prompts": {outcome: self.stored[outcome] for outcome in OUTCOMES},
        }
