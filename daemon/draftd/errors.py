"""The few exceptions of draftd, named by who is at fault."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DraftdError(Exception):
    """Base of every error that a person is shown without a traceback."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a file that a user wrote: where it stands and why it is refused."""

    file: Path
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.reason}"


class ConfigError(DraftdError):
    """The user's settings, profiles or prompts are at fault. `problems` names each one, in the order of the lines
    of their files; those of a file as a whole come first.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(sorted(problems, key=lambda one: (str(one.file), one.line or 0)))

    def __str__(self) -> str:
        return "\n".join([str(self.args[0]), *(f"  {problem}" for problem in self.problems)])


class RequestError(DraftdError):
    """The client is at fault: an HTTP status of 4xx and OpenAI's error fields.

    `kind` is the error's type; None for the one that fits the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param

    def __reduce__(self) -> tuple[Any, ...]:  # one that is raised in another process is pickled
        make = functools.partial(RequestError, kind=self.kind, code=self.code, param=self.param)
        return make, (self.status, str(self))


class WorkerError(DraftdError):
    """A worker is at fault, or not available: an HTTP status of 5xx (or 429, or its own) for the client.

    `kind` is the error's type; None for the one that fits the status. `retry_after` is in seconds; `retry=False`
    tells clients that trying again will not help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 503,
        kind: str | None = None,
        code: str | None = "worker_unavailable",
        param: str | None = None,
        retry_after: float | None = None,
        retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.retry = retry


class AlreadyRunningError(DraftdError):
    """Another daemon holds the state folder."""


class NotRunningError(DraftdError):
    """No daemon answers at the address that the state folder names."""
