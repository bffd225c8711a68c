"""What the daemon says of a request in headers, carried from the thread that reads it to the one that generates.

mlx_lm.server reads each request in a thread of its own, and generates in another. The context stands in headers: it
is current in the first thread once they are read, and travels with the request's arguments.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from draftd.protocol import (
    AHEAD_HEADER,
    AUTO_DRAFT,
    DRAFT_HEADER,
    DRAFTERS_HEADER,
    LOOKUP_DRAFTER,
    MODEL_DRAFTER,
    PROFILE_HEADER,
    PROFILE_NAME,
)

ALL_DRAFTERS = frozenset({MODEL_DRAFTER, LOOKUP_DRAFTER})
CONTEXT_ATTRIBUTE = "draftd_context"  # of mlx_lm's GenerationArguments


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`profile` says whose request it is; with `auto` the draft length may be less than what the body says.

    Only `drafters` may draft; None: all that there are may, where nothing is lost by it. `ahead`: nobody waits for
    the answer, the prompt is to be read.
    """

    profile: str | None = None
    auto: bool = False
    drafters: frozenset[str] | None = None
    ahead: bool = False


NO_CONTEXT = RequestContext()
_CURRENT = ContextVar("request_context", default=NO_CONTEXT)


def current() -> RequestContext:
    """Return the context of the request that this thread reads."""
    return _CURRENT.get()


def of(generation_args: Any) -> RequestContext:
    """Return the context that has travelled with a request's arguments."""
    context: RequestContext = getattr(generation_args, CONTEXT_ATTRIBUTE, NO_CONTEXT)
    return context


def read(headers: Mapping[str, str]) -> RequestContext:
    """Return the context that a request's headers give; a name that no profile can have is ignored."""
    name = headers.get(PROFILE_HEADER, "")
    drafters = headers.get(DRAFTERS_HEADER)
    return RequestContext(
        name if PROFILE_NAME.fullmatch(name) else None,
        headers.get(DRAFT_HEADER) == AUTO_DRAFT,
        None if drafters is None else ALL_DRAFTERS & set(drafters.split(",")),
        headers.get(AHEAD_HEADER) == "1",
    )


def carry(handler: Any, generator: Any) -> None:
    """Wrap the methods of the classes `handler` and `generator` (mlx_lm's APIHandler and ResponseGenerator)."""
    do_post, generate = handler.do_POST, generator.generate

    @functools.wraps(do_post)
    def reading(self: Any) -> None:
        with _during(read(self.headers)):
            do_post(self)

    @functools.wraps(generate)
    def carrying(self: Any, request: Any, generation_args: Any, *args: Any, **kwargs: Any) -> Any:
        setattr(generation_args, CONTEXT_ATTRIBUTE, current())
        return generate(self, request, generation_args, *args, **kwargs)

    handler.do_POST, generator.generate = reading, carrying


@contextmanager
def _during(context: RequestContext) -> Iterator[None]:
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)
