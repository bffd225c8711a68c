"""What a worker looks like from the outside: immutable values for status, metrics and error messages. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

from draftd.protocol import EXIT_WORDS, CacheSize
from draftd.sharing import Group

SIGNAL_WORDS = {
    "SIGABRT": "it aborted itself, as libraries and Metal do",
    "SIGSEGV": "it accessed memory that is not its own",
    "SIGBUS": "it accessed memory that is not there, such as that of a truncated file",
    "SIGILL": "its code is not for this processor",
    "SIGTRAP": "it aborted itself",
    "SIGKILL": "something killed it, as the system does when memory is short",
    "SIGXCPU": "it used up its processor time",
}


@dataclass(frozen=True, slots=True)
class LastExit:
    """How the last child ended. `at` is wall-clock time (epoch seconds); `lines` are its last words."""

    code: int | None
    reason: str
    at: float
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.reason} ({describe_code(self.code)})"


@dataclass(frozen=True, slots=True)
class RankStatus:
    """One rank of a group. `host` is "" on this machine, where it has a `pid`; `silent`: seconds without news."""

    rank: int
    host: str
    pid: int | None
    memory_bytes: int
    silent: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One profile's worker at one moment. `since` is when it entered its state (epoch seconds).

    `reason` says why it is not ready, "" if it is; `due` when that ends, if a time is set for it (epoch seconds).
    `waiting`: requests that wait until it is ready.

    `worker` is the name of the first of the profiles that share the worker. Only that one has its memory and its
    prompt cache, so that a sum over profiles is right.
    """

    name: str
    worker: str
    shares_with: tuple[str, ...]
    state: str
    pid: int | None
    port: int | None
    model: str
    draft_model: str | None
    drafters: tuple[str, ...]
    num_draft_tokens: int
    auto_draft: bool
    since: float
    reason: str
    due: float | None
    restarts: int
    last_exit: LastExit | None
    memory_bytes: int | None
    start_seconds: float | None
    accounting: bool
    draft_refusal: str | None
    batch_refusal: str | None
    notes: tuple[str, ...]
    ranks: tuple[RankStatus, ...] = ()
    prompt_cache: CacheSize | None = None
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class SpareStatus:
    """The warm spare at one moment. `memory_bytes` is None if it is just ending."""

    pid: int
    warm: bool
    memory_bytes: int | None


def of_members(status: WorkerStatus, group: Group) -> Iterator[WorkerStatus]:
    """The status of a worker, once for each profile that it serves."""
    for member in group.members:
        yield replace(
            status,
            name=member.name,
            shares_with=group.others(member.name),
            drafters=member.all_drafters,
            num_draft_tokens=member.draft_length,
            auto_draft=member.auto_draft,
            memory_bytes=status.memory_bytes if member.name == status.worker else None,
            prompt_cache=status.prompt_cache if member.name == status.worker else None,
        )


def describe_code(code: int | None) -> str:
    """An exit code in words: 'exit code 1', 'SIGTERM', or 'exit code 70: its generation thread died'.

    The last form says what our engine means by it. A foreign command may mean something else: the number stays.
    """
    if code is None:
        return "never started"
    if code < 0:
        try:
            name = signal.Signals(-code).name
            return f"{name}: {SIGNAL_WORDS[name]}" if name in SIGNAL_WORDS else name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}" + (f": {EXIT_WORDS[code]}" if code in EXIT_WORDS else "")
