"""Two daemons with scripted workers that a module's tests share, and connections that can be disturbed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from draftd.peers.machines import Peer
from tests.harness import QUICK, Served, fake, free_ports, serving
from tests.peers.between import Between, between

PLACES = 2  # of each worker
LIMITS = f"{QUICK}[limits]\nconcurrency = {PLACES}\nqueue = 1\n"


@dataclass
class Pair:
    """Two daemons that are nobody's peers yet; what they were asked stands in `logs`, one line per request."""

    one: Served
    other: Served
    logs: tuple[Path, Path]

    def runs(self, text: str) -> int:
        """How many times a worker of either daemon was given a text."""
        return sum(log.read_text().count(text) for log in self.logs if log.exists())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")]
    logs = (folders[0] / "asked", folders[1] / "asked")
    shared, own = (fake("--log-requests", str(log), tables=LIMITS) for log in logs)
    async with (
        serving(folders[0], {"m": f'aliases = ["em"]\n{shared}', "mine": shared}) as one,
        serving(folders[1], {"m": own}) as other,
    ):
        yield Pair(one, other, logs)


def peer_of(served: Served, port: int) -> Peer:
    """A daemon's peer at a port."""
    return next(peer for peer in served.daemon.fleet.peers if peer.name == f"127.0.0.1:{port}")


async def until(served: Served, port: int, label: str) -> None:
    """Wait until a peer is in a condition."""
    peer = peer_of(served, port)
    while peer.condition.label != label:
        peer.news.clear()
        await peer.news.wait()


__all__ = ["Between", "Pair", "between", "free_ports", "peer_of", "until"]
