"""What the loaded models are like, said once they are loaded: the record `loaded`.

For each model it has the kinds of its caches, why nothing may be drafted if so, its vocabulary and its context.
Nobody else needs to know how mlx_lm makes a model's cache.
"""

import functools
from collections.abc import Callable
from typing import Any

from draftd.engine import records
from draftd.protocol import LOADED

# How configs name the length of a model's context.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
STRETCHED_BY_FACTOR = frozenset({"linear", "dynamic", "yarn"})  # kinds of rope_scaling


def saying(load: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_load` of mlx_lm's ModelProvider: after it, the record is written. An error in that disturbs nobody."""

    @functools.wraps(load)
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        try:
            records.report(loaded_record(self.model, self.draft_model))
        except Exception as error:
            records.say(f"what the models are like could not be said: {records.describe(error)}")
        return result

    return loading


def loaded_record(model: Any, draft_model: Any, batch_refusal: str | None = None) -> str:
    """Return the record for the target model and the draft model, which may be None.

    `batch_refusal` is for a target model of which more is known than its kinds of cache tell.
    """
    draft = None if draft_model is None else facts(draft_model)
    target = facts(model)
    return records.record(LOADED, target=target | {"batch": batch_refusal or target["batch"]}, draft=draft)


def facts(model: Any) -> dict[str, Any]:
    """Return what there is to say about one model.

    `cache`: the kinds, as mlx_lm's classes are called, in the order of the layers and each once. `refusal`: why
    nothing may be drafted with it; None if it may. `batch`: why several requests that are drafted cannot share its
    passes, as far as the kinds tell. `vocabulary` and `context`: in tokens, None if unknown.
    """
    from mlx_lm.models.cache import make_prompt_cache

    from draftd.engine.generation.caches.layers import leaves
    from draftd.engine.generation.caches.ragged import batch_refusal_of
    from draftd.engine.generation.caches.sequence import refusal_of

    layers = make_prompt_cache(model)
    args = getattr(model, "args", None)
    return {
        "cache": list(dict.fromkeys(type(leaf).__name__ for leaf in leaves(layers))),
        "refusal": refusal_of(model, layers),
        "batch": batch_refusal_of(layers),
        "vocabulary": vocabulary_size(args),
        "context": context_length(args),
    }


def vocabulary_size(args: Any) -> int | None:
    """Return how many logits a model gives, by the arguments that mlx_lm built it from; None if they do not say."""
    return _argument(args, "vocab_size")


def context_length(args: Any) -> int | None:
    """Return the longest text that a model was made for, in tokens, by its arguments; None if they do not say.

    A `rope_scaling` that stretches the positions counts, as far as the model's own length does not hold it yet.
    """
    length = next((value for name in CONTEXT_NAMES if (value := _argument(args, name))), None)
    scaling = _value(args, "rope_scaling")
    if length is None or not isinstance(scaling, dict):
        return length
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    if kind not in STRETCHED_BY_FACTOR or not isinstance(factor, int | float):
        return length
    original = scaling.get("original_max_position_embeddings") if kind == "yarn" else None
    return max(length, int((original or length) * factor))


def _argument(args: Any, name: str) -> int | None:
    value = _value(args, name)
    return value if isinstance(value, int) else None


def _value(args: Any, name: str) -> Any:
    """Models that read more than text have the arguments of their text model one level deeper, as in their
    config.
    """
    text = getattr(args, "text_config", None)
    deeper = text.get(name) if isinstance(text, dict) else getattr(text, name, None)
    return getattr(args, name, None) or deeper
