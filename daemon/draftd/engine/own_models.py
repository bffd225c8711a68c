"""Refuses requests that would have mlx_lm.server load other weights than its own, or fetch something.

Before it looks for a model that it does not have, mlx_lm unloads the one that it serves; then it asks the model
hub. A `draft_model` of null takes the drafter away. An image's URL is fetched, even for a model that reads only
text. The daemon sends nothing of the kind; this is for what reaches the worker by another way.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from draftd.protocol import MAX_DRAFT_TOKENS

OWN = "default_model"  # mlx_lm's name for what the flags say


def keeping_to_own(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap `validate_model_parameters` of mlx_lm's APIHandler, whose ValueError becomes a 400.

    A server without a model of its own, which only a person can start, loads what it is asked for.
    """

    @functools.wraps(validate)
    def validate_model_parameters(self: Any) -> None:
        flags = self.response_generator.cli_args
        validate(self)
        if flags.model is not None:
            self.requested_model = own("model", self.requested_model, flags.model)
            self.requested_draft_model = own("draft_model", self.requested_draft_model, flags.draft_model)
            if self.adapter is not None:
                own("adapters", self.adapter, flags.adapter_path)
                self.adapter = None  # the own model brings it along
        if self.num_draft_tokens > MAX_DRAFT_TOKENS:
            raise ValueError(f"num_draft_tokens must be at most {MAX_DRAFT_TOKENS}")

    return validate_model_parameters


def own(field: str, asked: object, flag: str | None) -> str:
    """Return OWN for that name, and for what the worker's flag says. Raise ValueError for anything else."""
    if asked not in (OWN, flag):
        raise ValueError(f"{field} must be {OWN!r}: this worker loads no other models")
    return OWN


def no_fetching(
    inline: Callable[[Any], None], image_urls: Callable[[Any], Iterable[Any]]
) -> Callable[[Any], None]:
    """Wrap `_inline_image_urls` of mlx_lm's server, whose exceptions become a 400."""

    @functools.wraps(inline)
    def inline_image_urls(messages: Any) -> None:
        if not all(str(url).startswith("data:") for url in image_urls(messages)):
            raise ValueError("images must be data URLs: this worker fetches nothing")
        inline(messages)

    return inline_image_urls
