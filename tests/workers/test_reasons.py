"""What a person is told about a worker that is not ready."""

from __future__ import annotations

import pytest

from draftd.workers.reasons import Load, why
from draftd.workers.states import (
    Backoff,
    Draining,
    Failed,
    Queued,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    Then,
)
from draftd.workers.status import LastExit

EXIT = LastExit(1, "exit", 0.0, ())
LOADING, STUCK = Starting(0.0, 9.0), Starting(0.0, 9.0, stuck=True)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (Ready(0.0), ""),
        (Stopped(0.0), "starts with a request"),
        (Stopped(0.0, refusal="it needs 9 GB"), "it does not fit in memory: it needs 9 GB"),
        (Stopped(0.0, on_demand=False), "by order; 'draftd start a' starts it"),
        (Queued(0.0), "for its turn to load, after b, c"),
        (Draining(0.0, 9.0, Then.FAIL, "memory"), "2 requests may finish, then it is replaced (memory)"),
        (
            Draining(0.0, 9.0, Then.STOP, "room"),
            "2 requests may finish, then it ends (others need its place in memory)",
        ),
        (Draining(0.0, 9.0, Then.START, "config"), "2 requests may finish, then it is started again"),
        (Stopping(0.0, 9.0, Then.STOP, "operator"), "it was told to end, and then stays stopped"),
        (Backoff(0.0, 9.0, "exit"), "exit (exit code 1)"),
        (
            Failed(0.0, "exit", (1.0, 2.0)),
            "exit (exit code 1); given up after 2 failures; 'draftd restart a' tries again",
        ),
    ],
)
def test_each_state_that_is_not_ready_has_its_reason(state: State, reason: str) -> None:
    assert (
        why("a", state, ahead=["b", "c"], in_memory=None, load=Load(), open_requests=2, last=EXIT) == reason
    )


@pytest.mark.parametrize(
    ("state", "load", "reason"),
    [
        (LOADING, Load(), "loading"),
        (LOADING, Load(answer="nothing listens on its port"), "loading, nothing listens on its port"),
        (LOADING, Load(memory=1_250_000_000, weights=4_300_000_000), "loading, 1.2 of 4.3 GB in memory"),
        (LOADING, Load(memory=5_000_000_000, weights=4_300_000_000), "loading, 4.3 of 4.3 GB in memory"),
        (LOADING, Load(memory=110_000_000, weights=6_000_000), "loading"),
        (STUCK, Load(status=501), "no progress: it answered 501 to POST /v1/chat/completions"),
    ],
)
def test_how_far_a_load_is_and_what_its_probe_was_answered(state: State, load: Load, reason: str) -> None:
    assert why("a", state, ahead=[], in_memory=None, load=load, open_requests=0, last=None) == reason


def test_of_many_that_load_first_only_some_are_named() -> None:
    told = why("a", Queued(0.0), ahead=list("bcdef"), in_memory=None, load=Load(), open_requests=0, last=None)
    assert told == "for its turn to load, after b, c and 3 more"


@pytest.mark.parametrize(
    ("in_memory", "reason"), [(["b", "c"], "for room in memory, taken by b, c"), ([], "for room in memory")]
)
def test_who_waits_for_memory_is_told_who_has_it(in_memory: list[str], reason: str) -> None:
    told = why("a", Queued(0.0), ahead=[], in_memory=in_memory, load=Load(), open_requests=0, last=None)
    assert told == reason
