"""usage: the answer to a request that cannot wait for its worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from unittest.mock import Mock, patch

import pytest

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
from draftd.workers.usage import MAX_BACKOFF_WAIT, Usage, refusal
from tests.workers.watching import serving

NOW = 100.0
LAST = LastExit(-9, "exit", 1.0, ("loading", "Killed"))


def backoff(remaining: float) -> Backoff:
    return Backoff(NOW - 1, NOW + remaining, "exit", (NOW - 1,))


FAILED = Failed(NOW - 1, "exit", (1.0, 2.0, 3.0))
STOPPED = Stopped(NOW - 1, on_demand=False)


@pytest.mark.parametrize("witnessed_start", [False, True])
@pytest.mark.parametrize(
    "state",
    [
        Stopped(NOW, on_demand=True),
        Queued(NOW),
        Starting(NOW, NOW + 900),
        Ready(NOW),
        Draining(NOW, NOW + 30, Then.START, "operator"),
        Stopping(NOW, NOW + 10, Then.STOP, "operator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_request_waits_where_a_child_is_to_be_expected(state: State, witnessed_start: bool) -> None:
    assert refusal("fast", state, LAST, NOW, waited=0.0, witnessed_start=witnessed_start) is None


@pytest.mark.parametrize(
    ("state", "witnessed_start", "code", "retry", "retry_after"),
    [
        (FAILED, False, "worker_failed", False, None),
        (FAILED, True, "worker_failed", False, None),
        (STOPPED, False, "worker_stopped", False, None),
        (backoff(MAX_BACKOFF_WAIT + 0.5), False, "worker_unavailable", True, 11.5),
        (backoff(2.0), True, "worker_unavailable", True, 3.0),
        (backoff(-5.0), True, "worker_unavailable", True, 1.0),
    ],
    ids=str,
)
def test_a_request_is_told_whether_and_when_to_come_again(
    state: State, witnessed_start: bool, code: str, retry: bool, retry_after: float | None
) -> None:
    no = refusal("fast", state, LAST, NOW, waited=0.0, witnessed_start=witnessed_start)
    assert no is not None
    assert (no.status, no.code, no.retry, no.retry_after) == (503, code, retry, retry_after)
    assert "'fast'" in str(no)


@pytest.mark.parametrize("remaining", [-1.0, 0.5, MAX_BACKOFF_WAIT])
def test_a_new_request_waits_out_a_short_backoff(remaining: float) -> None:
    assert refusal("fast", backoff(remaining), LAST, NOW, waited=0.0, witnessed_start=False) is None


@pytest.mark.parametrize("state", [FAILED, backoff(60)], ids=lambda value: type(value).__name__)
def test_the_last_words_of_the_child_are_in_the_error(state: State) -> None:
    assert str(refusal("fast", state, LAST, NOW, waited=0.0, witnessed_start=False)).endswith(
        ": exit (SIGKILL: something killed it, as the system does when memory is short)\nloading\nKilled"
    )
    without = str(refusal("fast", state, None, NOW, waited=0.0, witnessed_start=False))
    assert "exit" not in without
    assert "\n" not in without


def test_an_error_says_what_helps() -> None:
    assert "failed 3 times" in str(refusal("fast", FAILED, None, NOW, waited=0.0, witnessed_start=False))
    assert "'draftd restart fast'" in str(
        refusal("fast", FAILED, None, NOW, waited=0.0, witnessed_start=False)
    )
    assert "'draftd start fast'" in str(
        refusal("fast", STOPPED, None, NOW, waited=0.0, witnessed_start=False)
    )


@pytest.fixture
def clock() -> Iterator[Mock]:
    with patch("draftd.workers.usage.time.monotonic") as monotonic:
        yield monotonic


def test_a_worker_is_idle_since_the_last_request_came_or_went(clock: Mock) -> None:
    clock.return_value = 10.0
    usage = Usage(_last=10.0)
    for uses in (usage.waits, lambda: serving(usage)):
        clock.return_value += 15.0
        assert usage.idle_seconds() == 15.0
        with uses():
            clock.return_value += 5.0
            assert usage.idle_seconds() == 0.0
        clock.return_value += 1.0
        assert usage.idle_seconds() == 1.0
        clock.return_value -= 1.0


def test_requests_are_counted_while_they_wait_and_while_they_are_served_however_that_ends() -> None:
    usage = Usage()

    def fail(uses: AbstractContextManager[None]) -> None:
        with uses:
            raise ZeroDivisionError(usage.waiting, usage.open)

    for uses, counts in ((usage.waits(), "1, 0"), (serving(usage), "0, 1")):
        with pytest.raises(ZeroDivisionError, match=counts):
            fail(uses)
        assert (usage.waiting, usage.open) == (0, 0)


def test_an_open_request_is_silent_since_it_began_or_got_on(clock: Mock) -> None:
    usage = Usage()
    clock.return_value = 15.0
    with serving(usage):
        clock.return_value = 25.0
        assert usage.silent_seconds() == 10.0
        usage.progress()
        clock.return_value = 26.0
        assert usage.silent_seconds() == 1.0
    assert usage.silent_seconds() == 0.0
