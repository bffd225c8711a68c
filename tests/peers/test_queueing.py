"""The simulation of many Macs: the caches save as much as one machine's would, and nobody waits longer for it."""

from __future__ import annotations

import pytest

from tests.peers.queueing import simulate


@pytest.mark.one_in(2)
@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.5)])
def test_choosing_by_prefixes_keeps_the_caches_and_makes_nobody_wait_longer(
    speeds: tuple[float, ...],
) -> None:
    alone = simulate("least queue", 1, sessions=40, seed=7, speeds=speeds)
    turns, least, ours = (
        simulate(policy, 4, sessions=15, seed=7, speeds=speeds)
        for policy in ("round robin", "least queue", "ours")
    )
    assert ours.hits >= 0.95 * alone.hits > turns.hits
    assert ours.mean < min(turns.mean, least.mean)
    assert ours.quantile(0.99) < min(turns.quantile(0.99), least.quantile(0.99))


def test_the_same_seed_gives_the_same_trace() -> None:
    once, again = (simulate("ours", 2, sessions=10, seed=3) for _ in range(2))
    assert once == again
    assert len(once.firsts) == 2 * 10 * 10
