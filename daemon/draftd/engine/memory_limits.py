"""Bounds what a worker takes of a GPU's memory, where mlx_lm sets no bounds or the GPU's own.

Every mlx_lm process wires as much as the GPU recommends for all of them together, and keeps prompts in its cache by
their number and not by their size. Several such workers have ended whole Macs. Here a worker may wire what it has
in use once its models are loaded, its prompt cache, and HEADROOM for the prompt that is being read; and never more
than the daemon gives it, so that all workers together keep to what the GPU may have. An engine that was started by
hand goes by the GPU's own word. Where there is no Metal nothing is wired, and only cached prompts have a bound.
"""

import functools
import importlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from draftd.protocol import HEADROOM, PROMPT_CACHE_SHARE, MemoryShare

FREE_CACHE_SHARE = 16  # of the GPU's memory one part may be kept for reuse
RECOMMENDED = "max_recommended_working_set_size"
UNBOUNDED = 1 << 63  # bytes, as mlx_lm has it


@dataclass(slots=True)
class MemoryLimits:
    """Bytes: what the GPU recommends for all processes (0: there is no Metal), and what this one may have wired at
    most. `prompt_cache` is for one that is not told otherwise by a flag.
    """

    gpu: int
    own: int
    prompt_cache: int
    _caches: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)

    def wired(self, active: int) -> int:
        """Return what may be wired by a process that has `active` bytes in use."""
        return min(self.gpu, self.own, active + self.prompt_cache + HEADROOM)

    def set_wired(self) -> int | None:
        """Take the place of mlx_lm's `maybe_set_recommended_wired_limit`.

        It sets what this process may wire now, and returns the limit that was in force; None without Metal.
        """
        if not self.gpu:
            return None
        mx: Any = importlib.import_module("mlx.core")
        before: int = mx.set_wired_limit(self.wired(mx.get_active_memory()))
        return before

    def obey(self, share: MemoryShare) -> None:
        """Keep to what the daemon gives, from now on."""
        for cache in self._caches:
            if cache.max_bytes == self.prompt_cache:
                cache.max_bytes = share.prompt_cache
        self.own, self.prompt_cache = share.wired, share.prompt_cache
        self.set_wired()

    def bounding(self, make_cache: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap mlx_lm's LRUPromptCache: one that is made without a bound has ours."""

        @functools.wraps(make_cache)
        def make(*args: Any, **kwargs: Any) -> Any:
            made = make_cache(*args, **{"max_bytes": self.prompt_cache, **kwargs})
            self._caches.add(made)
            return made

        return make


def limits_of(device: dict[str, Any]) -> MemoryLimits:
    """Return the limits on this device, as mlx describes it, for a process that has no share yet."""
    gpu = device.get(RECOMMENDED)
    if isinstance(gpu, int) and gpu > 0:
        return MemoryLimits(gpu, gpu, gpu // PROMPT_CACHE_SHARE)
    return MemoryLimits(0, 0, UNBOUNDED)


def after(load: Callable[..., Any], limits: MemoryLimits) -> Callable[..., Any]:
    """Wrap `_load` of mlx_lm's ModelProvider: the limit is set when the weights are in use."""

    @functools.wraps(load)
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        limits.set_wired()
        return result

    return loading
