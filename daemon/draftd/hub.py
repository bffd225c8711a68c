"""Models as files: a folder of the user's, or what the hub's cache holds of a name."""

from __future__ import annotations

import json
from pathlib import Path

CONTEXT = 32768  # tokens, where a model's own config is not at hand: what the presets' models have


def is_local(model: str) -> bool:
    """Whether mlx_lm takes `model` for a folder; else it asks the hub for that name."""
    return Path(model).exists() or model.startswith(("/", "./", "../", "~"))


def context_length(model: str) -> int:
    """Tokens that `model` can attend to, by its config.json; CONTEXT if that is neither local nor downloaded."""
    path = _config_file(model)
    try:
        config = json.loads(path.read_text("utf-8")) if path else {}
        text = config.get("text_config") or {}  # of models that see pictures too
        found = config.get("max_position_embeddings") or text.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return CONTEXT
    return found if isinstance(found, int) and found > 0 else CONTEXT


def _config_file(model: str) -> Path | None:
    if is_local(model):
        return Path(model) / "config.json"
    from huggingface_hub import try_to_load_from_cache  # late: it takes most of a second
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:  # no name that the hub could have
        return None
    return Path(found) if isinstance(found, str) else None
