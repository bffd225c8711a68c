"""A prompt cache whose entries hold what their keys say, also under speculative decoding.

mlx_lm.server keeps the key-value caches of past requests in an `LRUPromptCache`: a trie from token sequences
to the layers' caches, the target model's first and then the draft model's. It takes for granted
that every layer has processed all of the key. Speculative decoding breaks this:

- after a token of the target model, the key ends with that token, and no layer has processed it yet;
- when all proposed tokens were kept, the draft model has not processed the last of them either;
- in a request with `num_draft_tokens` 0, the draft model processes no generated token at all.

Taken up again, such layers are a few tokens behind, and the next answer differs. Hence two rules:

1. *What is stored fits.* On insertion, the key and every layer are cut to the shortest of them. Layers that
   do not fit and cannot be trimmed are not stored. Trimming moves an offset and frees nothing: the size of an
   entry in bytes, which mlx_lm takes from the allocated arrays, stays right.
2. *What is fetched leaves work.* The models need at least one token to continue from, so for a prompt that
   equals a key one token is taken back. Layers from which none can be taken back are passed over for the
   longest proper prefix that is stored.

Layers without an offset (the state of a recurrent model) cannot be checked; mlx_lm never drafts with them.
"""

from typing import Any

from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache

from draftd.engine.model_facts import leaves

Layers = list[Any]


class TruePromptCache(LRUPromptCache):  # type: ignore[misc]  # mlx_lm has no types
    """mlx_lm's prompt cache, with the two rules above."""

    def insert_cache(
        self, model: Any, tokens: list[int], prompt_cache: Layers, *, cache_type: str = "assistant"
    ) -> None:
        """Store the layers under the part of `tokens` that all of them have processed, if there is one."""
        length = min([len(tokens), *_offsets(prompt_cache)])
        if length > 0 and _cut(prompt_cache, length):
            super().insert_cache(model, tokens[:length], prompt_cache, cache_type=cache_type)

    def fetch_nearest_cache(self, model: Any, tokens: list[int]) -> tuple[Layers | None, list[int]]:
        """Return a copy of the layers for the longest stored prefix, and the tokens after it, never none."""
        layers, rest = super().fetch_nearest_cache(model, tokens)
        if layers is not None and not rest:
            if can_trim_prompt_cache(layers):
                rest = tokens[-1:]
                _cut(layers, len(tokens) - 1)
            else:
                layers, rest = super().fetch_nearest_cache(model, tokens[:-1])
                rest = rest + tokens[-1:]
        if layers is None or not _fits(layers, len(tokens) - len(rest)):
            return None, tokens
        return layers, rest


def _offsets(layers: Layers) -> list[int]:
    """Return how many tokens each layer has processed, but for layers that do not know."""
    offsets = (getattr(leaf, "offset", None) for leaf in leaves(layers))
    return [offset for offset in offsets if isinstance(offset, int)]


def _fits(layers: Layers, length: int) -> bool:
    return all(offset == length for offset in _offsets(layers))


def _cut(layers: Layers, length: int) -> bool:
    """Trim every layer to `length` tokens, if they can be trimmed; return whether they fit now."""
    if not _fits(layers, length) and can_trim_prompt_cache(layers):
        for leaf in leaves(layers):
            leaf.trim(leaf.offset - length)
    return _fits(layers, length)
