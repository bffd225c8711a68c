"""What a worker takes of a machine's memory, with a stand-in for a Mac's GPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from draftd.engine.memory_limits import UNBOUNDED, MemoryLimits, limits_of
from draftd.protocol import CHANNEL_VARIABLE, HEADROOM, MemoryShare

GIB = 2**30
STAND_IN = """
import mlx.core as mx
said = []
active = 0
mx.device_info = lambda: {"max_recommended_working_set_size": 16 * 2**30, "architecture": "m"}
mx.set_wired_limit = lambda size: said.append(size / 2**30) or 7
mx.set_cache_limit = lambda size: print("cache", size / 2**30)
mx.get_active_memory = lambda: active
"""
ON_A_MAC = """
import importlib
from mlx_lm import server, utils
generate = importlib.import_module("mlx_lm.generate")  # the package has a function of that name
def load(self, *_): global active; active = 5 * 2**30
server.ModelProvider._load = load
from draftd.engine import hooks
print(hooks.place_all()["memory_limits"])
print("before", server.maybe_set_recommended_wired_limit(), said)
provider = object.__new__(server.ModelProvider)
provider.reset()
provider._adapter_map = provider._model_map = provider._draft_model_map = {}
provider.load("x")
print("loaded", said, utils.maybe_set_recommended_wired_limit is generate.maybe_set_recommended_wired_limit)
print("prompts", server.LRUPromptCache(10).max_bytes / 2**30)
"""
# The engine as a whole, up to where mlx_lm.server would parse its flags.
AS_A_WORKER = """
from mlx_lm import server
def main():
    server.ModelProvider  # the hooks look whether mlx_lm's own uses it
    kept, own = server.LRUPromptCache(10), server.LRUPromptCache(10, max_bytes=123)
    print("wires", said, kept.max_bytes, own.max_bytes, flush=True)
    for _ in range(200):
        if kept.max_bytes == 2**30: break
        import time; time.sleep(0.02)
    print("then", said, kept.max_bytes, own.max_bytes, server.LRUPromptCache(10).max_bytes, flush=True)
server.main = main
from draftd.engine.__main__ import main as engine
engine()
"""


@pytest.mark.parametrize(
    ("active", "own", "wired"),
    [
        (0, 16 * GIB, 2 * GIB + HEADROOM),
        (5 * GIB, 16 * GIB, 7 * GIB + HEADROOM),
        (15 * GIB, 16 * GIB, 16 * GIB),
        (5 * GIB, 4 * GIB, 4 * GIB),
        (5 * GIB, 0, 0),
        (15 * GIB, 99 * GIB, 16 * GIB),
    ],
)
def test_a_worker_wires_its_own_and_never_more_than_it_is_given_or_the_gpu_may(
    active: int, own: int, wired: int
) -> None:
    assert MemoryLimits(16 * GIB, own, 2 * GIB).wired(active) == wired


class Cache:
    """As much of mlx_lm's LRUPromptCache as has a bound."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes


def test_without_metal_nothing_is_wired_and_a_share_bounds_cached_prompts_only() -> None:
    for device in ({"architecture": "x86_64"}, {"max_recommended_working_set_size": 0}):
        limits = limits_of(device)
        cache = limits.bounding(Cache)()
        assert (limits.gpu, cache.max_bytes) == (0, UNBOUNDED)
        limits.obey(MemoryShare(8 * GIB, GIB))
        assert (cache.max_bytes, limits.set_wired(), limits.wired(GIB)) == (GIB, None, 0)


@pytest.mark.real
def test_on_a_mac_the_limits_are_set_before_and_after_the_load() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN + ON_A_MAC], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "cache 1.0",
        "placed",
        "before 7 [3.0]",
        "loaded [3.0, 8.0] True",
        "prompts 2.0",
    ], done.stderr


@pytest.mark.real
@pytest.mark.fault(102)
@pytest.mark.parametrize("mac", [True, False])
def test_a_worker_keeps_to_the_share_that_the_daemon_gives_it_and_to_the_larger_one_later(
    mac: bool,
) -> None:
    ours, theirs = socket.socketpair()
    code = (STAND_IN if mac else "said = []") + AS_A_WORKER
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, CHANNEL_VARIABLE: str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
            text=True,
        ) as engine,
    ):
        assert engine.stdout is not None
        ours.sendall(b"secret\n" + MemoryShare(GIB, GIB // 4).line())
        if mac:
            assert engine.stdout.readline() == "cache 1.0\n"
        first, second = ([1.0], [1.0, 2.0]) if mac else ([], [])
        assert engine.stdout.readline() == f"wires {first} {GIB // 4} 123\n"
        ours.sendall(b"no share\n" + MemoryShare(3 * GIB, GIB).line())
        assert engine.stdout.readline() == f"then {second} {GIB} 123 {GIB}\n"
