"""What a worker takes of a GPU's memory, with a stand-in for a Mac's GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

from draftd.engine.memory_limits import HEADROOM, MemoryLimits, limits_of

GIB = 2**30
ON_A_MAC = """
import mlx.core as mx
said = []
active = 0
mx.device_info = lambda: {"max_recommended_working_set_size": 16 * 2**30, "architecture": "m"}
mx.set_wired_limit = lambda size: said.append(size / 2**30) or 7
mx.set_cache_limit = lambda size: print("cache", size / 2**30)
mx.get_active_memory = lambda: active
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


@pytest.mark.parametrize(
    ("active", "wired"), [(0, 2 * GIB + HEADROOM), (5 * GIB, 7 * GIB + HEADROOM), (15 * GIB, 16 * GIB)]
)
def test_a_worker_wires_its_own_and_never_more_than_the_gpu_may(active: int, wired: int) -> None:
    assert MemoryLimits(16 * GIB, 2 * GIB).wired(active) == wired


def test_without_metal_there_are_no_limits() -> None:
    assert limits_of({"architecture": "x86_64"}) is None
    assert limits_of({"max_recommended_working_set_size": 0}) is None
    assert limits_of({"max_recommended_working_set_size": 16 * GIB}) == MemoryLimits(16 * GIB, 2 * GIB)


@pytest.mark.real
def test_on_a_mac_the_limits_are_set_before_and_after_the_load() -> None:
    done = subprocess.run([sys.executable, "-c", ON_A_MAC], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "cache 1.0",
        "placed",
        "before 7 [3.0]",
        "loaded [3.0, 8.0] True",
        "prompts 2.0",
    ], done.stderr
