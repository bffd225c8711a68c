"""Tiny random models in float32, one for each architecture of mlx_lm."""

import copy
import importlib
import inspect
import pkgutil
from typing import Any

import mlx.core as mx
import mlx_lm.models
from mlx.utils import tree_map, tree_map_with_path

from tests.engine.architectures.sizes import COMMON, OWN

NO_ARCHITECTURES = frozenset(
    [
        *("activations", "base", "bitlinear_layers", "cache", "gated_delta"),
        *("mla", "pipeline", "rope_utils", "ssm", "switch_layers"),
    ]
)
LEFT_OUT = {
    "bitnet": "its layers are computed by a kernel for Metal only",
    "muse_spark": "its layers are computed by kernels for Metal only",
    "olmo": "needs the package ai2-olmo to import, and fails in mlx_lm at any prompt of several tokens",
    "prism_hadamard_qwen35": "qwen3_5 with weights packed by a manifest, of at least 128 columns in 2 bits",
}

# Their output is their embedding turned round, so that each token asks for itself, unless that is small.
REPEATING = frozenset(["gemma", "gemma2", "gemma3n", "phi3small"])


def architectures() -> list[str]:
    """Return the names of mlx_lm's modules that are architectures."""
    modules = (module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__))
    return sorted(name for name in modules if name not in NO_ARCHITECTURES)


def made_small() -> list[str]:
    return [name for name in architectures() if name not in LEFT_OUT]


def config_of(name: str, **other: Any) -> dict[str, Any]:
    """Return the config of a small model; `other` are sizes besides, or in the place of, those of `sizes`."""
    known = inspect.signature(importlib.import_module(f"mlx_lm.models.{name}").ModelArgs).parameters
    sizes = {key: value for key, value in COMMON.items() if key in known} | OWN.get(name, {}) | other
    return copy.deepcopy(sizes | {"model_type": name})


def make(name: str, **other: Any) -> Any:
    """Return a model whose text varies: its weights are larger than those that mlx begins with.

    It is the same one whatever was made before: some of what it begins with, biases for instance, is random too.
    """
    arch = importlib.import_module(f"mlx_lm.models.{name}")
    seed = sum(map(ord, name))
    mx.random.seed(seed)
    model = arch.Model(arch.ModelArgs.from_dict(config_of(name, **other)))
    mx.random.seed(seed)
    model.update(tree_map_with_path(_random, model.parameters()))
    if name in REPEATING:
        embedding = next(module for path, module in model.named_modules() if path.endswith("embed_tokens"))
        embedding.weight = embedding.weight * 0.05
    if name == "phi3small":  # it writes to these, which lie beyond a small vocabulary
        model._dummy_tokenizer_ids = mx.array([0])
    model.eval()
    mx.eval(model.parameters())
    return model


def noisy(name: str, noise: float = 0.01, **other: Any) -> Any:
    """Return a draft model for `make(name, **other)`: the same weights, and some noise."""
    model = make(name, **other)

    def blurred(weight: Any) -> Any:
        return weight + noise * mx.std(weight) * mx.random.normal(weight.shape) if weight.ndim > 1 else weight

    model.update(tree_map(blurred, model.parameters()))
    mx.eval(model.parameters())
    return model


def _random(path: str, weight: mx.array) -> mx.array:
    if not mx.issubdtype(weight.dtype, mx.floating):
        return weight
    weight = weight.astype(mx.float32)
    if weight.ndim < 2:
        return weight
    scale = 0.5 if "conv" in path else 2.0 / weight.shape[-1] ** 0.5
    return mx.random.normal(weight.shape) * scale
