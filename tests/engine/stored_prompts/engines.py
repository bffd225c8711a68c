"""Engines' prompt caches with a store, and what is put in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from draftd.engine.prompt_cache import TruePromptCache
from draftd.engine.stored_prompts.store import Store
from draftd.protocol import PROMPT_CACHE_SUFFIX, PromptStore
from tests.engine.stand_in import VOCABULARY, Asked, Generator

GB = 10**9
MODEL = ("model",)
LENGTH = 400
PROMPT = [(7 * i * i + 3 * i) % (VOCABULARY - 3) + 3 for i in range(LENGTH)]


class Engine:
    """An engine's prompt cache with a store, and its models if there are any."""

    def __init__(
        self,
        folder: Path,
        models: tuple[Any, Any] = (None, None),
        *,
        identity: str = "a" * 64,
        bound: int = GB,
    ) -> None:
        self.said: list[str] = []
        self.generator = Generator(*models, ends=False)
        self.cache: TruePromptCache = self.generator.prompt_cache
        self.outcomes: list[str] = []
        place = PromptStore(str(folder), bound, 10.0)
        self.store = Store(place, identity, MODEL, self.said.append, self.outcomes.append)
        self.cache.store = self.store

    def ask(self, prompt: list[int], **how: Any) -> tuple[list[int], int]:
        """The tokens of the answer, and how many of the prompt had not to be read."""
        asked = Asked(prompt, max_tokens=24, **how)
        self.generator.serve((0, asked))
        return asked.tokens, asked.context.prompt_cache_count

    def put(self, tokens: list[int]) -> None:
        """Store what a model of one layer has read."""
        rows = mx.arange(len(tokens) * 64, dtype=mx.float32).reshape(1, 1, len(tokens), 64)
        layer = KVCache()
        layer.update_and_fetch(rows, rows)
        self.cache.insert_cache(MODEL, tokens, [layer])

    def taken_up(self, tokens: list[int]) -> int:
        """How many tokens of a prompt need not be read."""
        return len(tokens) - len(self.cache.fetch_nearest_cache(MODEL, tokens)[1])

    def end(self) -> None:
        """Save all, as at SIGTERM."""
        self.store._ending.set()
        self.store.idle(self.cache)
        self.store._jobs.join()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{PROMPT_CACHE_SUFFIX}"))


def filled(kind: Callable[[], Any], tokens: int) -> Any:
    layer = kind()
    rows = mx.random.normal((1, 2, tokens, 64)).astype(mx.bfloat16)
    layer.update_and_fetch(rows, rows)
    return layer
