"""Refuses, before it is loaded, a model that cannot be split over the ranks of a group."""

import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from draftd.engine.exits import leave
from draftd.protocol import EXIT_REFUSED
from draftd.sharded_models import PIPELINE, TENSOR, misfits


def checked(sharded_load: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap mlx_lm's `sharded_load`: end the process where its result would write garbage."""

    @functools.wraps(sharded_load)
    def loading(repo: str, pipeline_group: Any = None, tensor_group: Any = None, **options: Any) -> Any:
        group, mode = (pipeline_group, PIPELINE) if pipeline_group is not None else (tensor_group, TENSOR)
        found = misfits(config_of(repo), group.size(), mode)
        if found:
            leave(EXIT_REFUSED, f"{repo} does not fit {group.size()} ranks: {'; '.join(found)}")
        return sharded_load(repo, pipeline_group=pipeline_group, tensor_group=tensor_group, **options)

    return loading


def config_of(repo: str) -> dict[str, Any]:
    """Return a model's config.json, which is fetched if it is not here."""
    utils: Any = importlib.import_module("mlx_lm.utils")
    folder = Path(utils._download(repo, allow_patterns=["config.json"]))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config
