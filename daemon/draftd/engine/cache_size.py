"""Tells the daemon how large the prompt cache is, when that has changed, and at most once a second.

mlx_lm's thread asks for requests all the time, also while others are at work: there one looks.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from draftd.engine import records
from draftd.protocol import PROMPT_CACHE

INTERVAL = 1.0  # seconds


def telling(next_request: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_next_request` of mlx_lm's ResponseGenerator."""
    told: dict[str, int] = {}
    due = 0.0

    @functools.wraps(next_request)
    def next_and_tell(self: Any, timeout: float | None = None) -> Any:
        nonlocal told, due
        if (now := time.monotonic()) >= due:
            size = size_of(self.prompt_cache)
            if size != told:
                told, due = size, now + INTERVAL
                records.report(records.record(PROMPT_CACHE, **size))
        return next_request(self, timeout)

    return next_and_tell


def size_of(cache: Any) -> dict[str, int]:
    """Return the number of entries of mlx_lm's LRUPromptCache, their bytes, and the bound on these."""
    return {"entries": len(cache), "bytes": int(cache.nbytes), "limit": int(cache.max_bytes)}
