"""mlx_lm's GenerationArguments for a request, where mlx_lm's own reading of a number would be another one.

A penalty that looks back at no token punishes none. mlx_lm takes the last 0 tokens of a list for all that it is
given, which is the whole text in a batch, and here as many as a draft is long: the text would depend on the draft.
And a number below TINY makes infinities of logits, among which no token is likelier than another: so small a
temperature is none, and a repetition penalty is kept where its quotients are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_lm import server

from draftd.engine.answers import reasoning_effort
from draftd.engine.answers.reasoning_effort import template_arguments

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "xtc_probability", "xtc_threshold")
PENALTIES = ("repetition", "presence", "frequency")
LOGITS = (
    "logit_bias",
    *(f"{name}_{part}" for name in PENALTIES for part in ("penalty", "context_size")),
)
OTHERS = ("max_tokens", "num_draft_tokens", "logprobs", "top_logprobs", "seed", "chat_template_kwargs")
MODEL = {"model": "requested_model", "draft": "requested_draft_model", "adapter": "adapter"}

TINY = 1e-30  # float32 ends at 3e38, and a logit may have some thousands


def generation_arguments(handler: Any) -> Any:
    """Return mlx_lm's GenerationArguments for what its APIHandler has read of a request.

    Raise RefusedRequestError if the chat template cannot do what is asked of it.
    """

    def read(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(handler, name) for name in names}

    templated = template_arguments(
        handler.chat_template_kwargs,
        handler.body.get(reasoning_effort.FIELD),
        handler.response_generator.model_provider.tokenizer,
    )
    return server.GenerationArguments(
        model=server.ModelDescription(**{name: getattr(handler, theirs) for name, theirs in MODEL.items()}),
        sampling=server.SamplingArguments(**_sampling(read(SAMPLING))),
        logits=server.LogitsProcessorArguments(**_logits(read(LOGITS))),
        stop_words=[],
        **(read(OTHERS) | {"chat_template_kwargs": templated}),
    )


def _sampling(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**asked, "temperature": 0.0 if asked["temperature"] < TINY else asked["temperature"]}


def _logits(asked: Mapping[str, Any]) -> dict[str, Any]:
    meant = dict(asked)
    if meant["repetition_penalty"]:
        meant["repetition_penalty"] = min(max(meant["repetition_penalty"], TINY), 1 / TINY)
    for name in PENALTIES:
        if not meant[f"{name}_context_size"]:
            meant[f"{name}_penalty"] = 0.0
    return meant
