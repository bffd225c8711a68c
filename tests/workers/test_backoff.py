"""How long a failed worker waits for its next start."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.profile_tables import RestartPolicy
from draftd.workers.backoff import JITTER, after_failure, backoff_delay
from draftd.workers.events import GPU_MEMORY

restarts = st.builds(
    RestartPolicy,
    initial_delay=st.floats(0.001, 100),
    max_delay=st.floats(0.001, 1000),
    max_failures=st.integers(1, 8),
    window=st.floats(1, 1000),
    stable_delay=st.floats(0.001, 1),
)
jitters = st.floats(0, 1, exclude_max=True)


def test_the_last_failure_that_is_allowed_has_no_delay() -> None:
    restart = RestartPolicy(max_failures=2, window=100.0, stable_delay=0.5, max_delay=60.0)
    assert after_failure((), "exit", 10.0, restart, was_ready=True, jitter=0.0) == ((10.0,), 0.5)
    assert after_failure((10.0,), "exit", 109.0, restart, was_ready=True, jitter=0.0) == ((10.0, 109.0), None)
    assert after_failure((10.0,), GPU_MEMORY, 110.0, restart, was_ready=True, jitter=0.0) == ((110.0,), 60.0)


def test_delays_grow_to_the_limit_and_no_further() -> None:
    many = RestartPolicy(max_failures=100)
    delays = [backoff_delay(failures, many, was_ready=False, jitter=0.0) for failures in range(1, 10)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff_delay(10**6, many, was_ready=False, jitter=0.0) == 60


@given(restarts, st.integers(1, 10**9), jitters)
def test_a_delay_lies_between_its_first_and_its_longest_with_jitter(
    restart: RestartPolicy, failures: int, jitter: float
) -> None:
    delay = backoff_delay(failures, restart, was_ready=False, jitter=jitter)
    assert min(restart.initial_delay, restart.max_delay) <= delay <= restart.max_delay * (1 + JITTER)


@given(restarts, jitters)
def test_delays_never_shrink_from_one_failure_to_the_next(restart: RestartPolicy, jitter: float) -> None:
    delays = [backoff_delay(n, restart, was_ready=False, jitter=jitter) for n in range(1, 80)]
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert delays[-1] == pytest.approx(restart.max_delay * (1 + JITTER * jitter))


@given(restarts)
def test_workers_killed_together_do_not_return_together(restart: RestartPolicy) -> None:
    first, last = (backoff_delay(2, restart, was_ready=False, jitter=jitter) for jitter in (0.0, 0.999))
    assert last > first * 1.1
