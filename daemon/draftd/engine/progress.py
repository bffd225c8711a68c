"""Tells the daemon that a request makes progress, so that a slow one is not taken for a stalled one.

A record is written at each pass over a prompt and at each token, at most one a second. A generation that is stuck
inside a pass makes no further one, and falls silent.

What is batched reports to the thread that answers the request. `with_ticks` listens there, since nothing of it
shows in an answer that is not streamed.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

INTERVAL = 1.0  # seconds between two records


def at_most_every(
    seconds: float, write: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """Return a function that calls `write`, but not within `seconds` of the last time."""
    last = -seconds + clock()

    def tick() -> None:
        nonlocal last
        now = clock()
        if now - last >= seconds:
            last = now
            write()

    return tick


def with_ticks(generate: Callable[..., Any], tick: Callable[[], None]) -> Callable[..., Any]:
    """Wrap `generate` of mlx_lm's ResponseGenerator: `tick` is called for each piece of a prompt and each token."""

    @functools.wraps(generate)
    def generating(self: Any, request: Any, generation_args: Any, progress_callback: Any = None) -> Any:
        def progress(processed: int, total: int) -> None:
            tick()
            if progress_callback is not None:
                progress_callback(processed, total)

        context, tokens = generate(self, request, generation_args, progress)
        return context, _ticked(tokens, tick)

    return generating


def _ticked(tokens: Iterable[Any], tick: Callable[[], None]) -> Iterator[Any]:
    for token in tokens:
        tick()
        yield token
