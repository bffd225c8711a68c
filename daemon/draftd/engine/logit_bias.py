"""Takes a bias on tokens, and refuses one on tokens that a model does not have.

mlx_lm adds a bias at the token's place in the logits without checking how many there are; beyond their end it
writes outside its memory. So the daemon sends a bias under a name that mlx_lm does not know, and it gets mlx_lm's
own name only here, where the sizes of the vocabularies are known. Without this hook it is ignored. A bias under
mlx_lm's own name, which the daemon never sends, is checked in the same way.
"""

import functools
from collections.abc import Callable
from typing import Any

from draftd.engine.model_facts import vocabulary_size
from draftd.protocol import LOGIT_BIAS_FIELD


def checked(bias: Any, size: int) -> dict[int, float]:
    """Return the bias by token. Raise ValueError if it is not one, or names a token that is not below `size`."""
    try:
        made = {int(token): float(value) for token, value in bias.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("logit_bias must give a number for each token's id") from error
    if unknown := [token for token in made if not 0 <= token < size]:
        raise ValueError(
            f"logit_bias names token {unknown[0]}, and this model has the tokens 0 to {size - 1}"
        )
    return made


def vocabulary(*models: Any) -> int:
    """Return how many tokens all of the models have; None stands for no model. Raise ValueError if there is no
    model yet, or one does not say.
    """
    sizes = [vocabulary_size(model.args) for model in models if model is not None]
    if not sizes:
        raise ValueError("logit_bias cannot be checked before the model is loaded")
    if None in sizes:
        raise ValueError("logit_bias cannot be used: the model does not say how many tokens it has")
    return min(size for size in sizes if size is not None)


def taking_bias(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap `validate_model_parameters` of mlx_lm's APIHandler, whose ValueError becomes a 400."""

    @functools.wraps(validate)
    def validate_model_parameters(self: Any) -> None:
        if bias := self.body.get(LOGIT_BIAS_FIELD) or self.logit_bias:
            loaded = self.response_generator.model_provider
            self.logit_bias = checked(bias, vocabulary(loaded.model, loaded.draft_model))
        validate(self)

    return validate_model_parameters
