"""Bounds what a worker takes of a GPU's memory, where mlx_lm sets no bounds or the GPU's own.

Every mlx_lm process wires as much as the GPU recommends for all of them together, and keeps prompts in its cache by
their number and not by their size. Several such workers have ended whole Macs. Here a worker may wire what it has
in use once its models are loaded, its prompt cache, and HEADROOM for the prompt that is being read; and what is
kept for reuse is a stated share of the GPU's memory. Where there is no Metal nothing is wired, and nothing changed.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HEADROOM = 2**30  # bytes
PROMPT_CACHE_SHARE = 8  # of the GPU's memory one part, unless --prompt-cache-bytes says otherwise
FREE_CACHE_SHARE = 16
RECOMMENDED = "max_recommended_working_set_size"


@dataclass(slots=True)
class MemoryLimits:
    """Bytes: what the GPU recommends for all processes, and what this one's prompt cache may hold."""

    gpu: int
    prompt_cache: int

    def wired(self, active: int) -> int:
        """Return what may be wired by a process that has `active` bytes in use."""
        return min(self.gpu, active + self.prompt_cache + HEADROOM)


def limits_of(device: dict[str, Any]) -> MemoryLimits | None:
    """Return the limits on this device, as mlx describes it; None if it names no size to go by."""
    gpu = device.get(RECOMMENDED)
    return MemoryLimits(gpu, gpu // PROMPT_CACHE_SHARE) if isinstance(gpu, int) and gpu > 0 else None


def setting_own(limits: MemoryLimits) -> Callable[[], int]:
    """Return what takes the place of mlx_lm's `maybe_set_recommended_wired_limit`.

    It sets what this process may wire now, and returns the limit that was in force, in bytes.
    """

    def set_own_limit() -> int:
        mx: Any = importlib.import_module("mlx.core")
        before: int = mx.set_wired_limit(limits.wired(mx.get_active_memory()))
        return before

    return set_own_limit


def after(load: Callable[..., Any], set_own_limit: Callable[[], int]) -> Callable[..., Any]:
    """Wrap `_load` of mlx_lm's ModelProvider: the limit is set when the weights are in use."""

    @functools.wraps(load)
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        set_own_limit()
        return result

    return loading
