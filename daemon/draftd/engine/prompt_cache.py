"""A prompt cache whose entries hold what their keys say, for every kind of cache and under speculative decoding.

mlx_lm.server keeps the key-value caches of past requests in an `LRUPromptCache`: a trie from token sequences to
the layers' caches, the target model's first and then the draft model's. It takes for granted that every layer has
processed all of the key, and that layers can be trimmed or not once and for all. Neither is so: a draft model may
have read less than the target model, and a window can be cut by some tokens, but not by many. Hence two rules:

1. *What is stored fits.* The target model's layers say how much of the key has been read: the key is cut to that,
   and layers that are ahead of it are cut as well. Entries with a layer that cannot be cut are not stored.
2. *What is fetched leaves work.* The models need at least one token to continue from. Of the stored keys the one is
   taken that has the most in common with the prompt, if its layers can be cut to that; else the next.

With a `store` entries outlive the process: it notes what is put in here, and brings what it has in files before a
prompt is looked for.
"""

import copy
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Protocol

from mlx_lm.models.cache import LRUPromptCache

from draftd.engine.generation.caches.layers import Layers, can_rewind, leaves, rewind


class Keeper(Protocol):
    """Whoever keeps entries beyond the process.

    `known` tokens of a prompt need not be read as it is. `at_work`: see `TruePromptCache.fetch_nearest_cache`.
    """

    def note(self, model: Any, tokens: list[int], kind: str) -> None: ...

    def bring(
        self, cache: "TruePromptCache", model: Any, tokens: list[int], known: int, at_work: int | None
    ) -> None: ...


class TruePromptCache(LRUPromptCache):  # type: ignore[misc]  # mlx_lm has no types
    """mlx_lm's prompt cache, with the two rules above."""

    store: Keeper | None = None

    def insert_cache(
        self, model: Any, tokens: list[int], prompt_cache: Layers, *, cache_type: str = "assistant"
    ) -> None:
        """Store the layers under the part of `tokens` that the first of them has read, if the others fit."""
        first = next(leaves(prompt_cache), None)
        length = min(len(tokens), _position(first, len(tokens)))
        if length > 0 and cut(prompt_cache, len(tokens), length):
            super().insert_cache(model, tokens[:length], prompt_cache, cache_type=cache_type)
            if self.store is not None:
                self.store.note(model, tokens[:length], cache_type)

    def restore(self, model: Any, tokens: list[int], layers: Layers, kind: str) -> None:
        """Put back an entry as it was put in once."""
        super().insert_cache(model, tokens, layers, cache_type=kind)

    def layers_of(self, model: Any, tokens: list[int]) -> Layers | None:
        """Return the layers stored under exactly this key, which are not to be changed; None if there are none."""
        exact = self._trie.search(model, tokens).exact
        layers: Layers | None = None if exact is None else self._trie.get(model, exact).prompt_cache
        return layers

    def fetch_nearest_cache(
        self, model: Any, tokens: list[int], *, at_work: int | None = None
    ) -> tuple[Layers | None, list[int]]:
        """Return a copy of the layers for the longest stored prefix, and the tokens after it, never none.

        `at_work`: the bytes that the caches of other requests take, which wait meanwhile; None without any.
        """
        if self.store is not None:
            self.store.bring(self, model, tokens, self._best(model, tokens)[1], at_work)
        key, length = self._best(model, tokens)
        if not length:
            return None, tokens
        layers = copy.deepcopy(self._trie.get(model, key).prompt_cache)
        cut(layers, len(key), length)
        return layers, tokens[length:]

    def _best(self, model: Any, tokens: list[int]) -> tuple[list[int], int]:
        """Return the stored key that a prompt can take the most from, and how much; 0 for none."""
        for key, length in self._candidates(model, tokens):
            layers = self._trie.get(model, key).prompt_cache
            if length > 0 and _all_can_cut(layers, len(key), length):
                return key, length
        return [], 0

    def _candidates(self, model: Any, tokens: list[int]) -> Iterator[tuple[list[int], int]]:
        """Yield stored keys, and how much of a prompt can be taken from each, most first."""
        found = self._trie.search(model, tokens)
        shorter = found.shorter
        if found.exact is not None:
            yield found.exact, len(tokens) - 1
            shorter = self._trie.search(model, tokens[:-1]).shorter
        elif found.longer is not None and found.common_prefix > len(shorter or ()):
            yield found.longer, min(found.common_prefix, len(tokens) - 1)
        if shorter:
            yield shorter, len(shorter)


def fewest(layers: Layers, key: int) -> int:
    """Return the smallest number of tokens that layers stored under a key of `key` tokens can be cut to."""
    return bisect_left(range(key), True, key=lambda length: _all_can_cut(layers, key, length))


def _position(leaf: Any, key: int) -> int:
    """How many tokens a layer has read; one that does not know has read all `key` tokens of its key."""
    offset = getattr(leaf, "offset", None)
    return offset if isinstance(offset, int) else key


def _can_cut(leaf: Any, key: int, length: int) -> bool:
    ahead = _position(leaf, key) > length
    return not ahead or (hasattr(leaf, "offset") and can_rewind(leaf, length))


def _all_can_cut(layers: Layers, key: int, length: int) -> bool:
    return all(_can_cut(leaf, key, length) for leaf in leaves(layers))


def cut(layers: Layers, key: int, length: int) -> bool:
    """Take every layer that is ahead back to `length` tokens, if all can be; return whether they could."""
    if not _all_can_cut(layers, key, length):
        return False
    for leaf in leaves(layers):
        if _position(leaf, key) > length:
            rewind(leaf, length)
    return True
