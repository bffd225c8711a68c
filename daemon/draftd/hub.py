"""Models on this machine: whether one is here, how large it is, and what its config says. One answer for everybody.

A model is named as in a profile: a folder, or a repository of the model hub whose download lies in the hub's cache.
The cache is read here as its documentation lays it out (refs/main names the folder in snapshots/), since importing
huggingface_hub would cost the daemon most of a second and 20 MB. Asking the hub itself is for `draftd.ops.pull`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draftd.files import read_bytes, read_text

# Model types for which mlx_lm 0.32 gives a different text when several tokens are read in one pass, so that nothing
# may be drafted with them. The engine finds it out by itself; this is for before anything is loaded.
NEVER_DRAFTED: Mapping[str, str] = {"phi3small": "mlx_lm lets its tokens see those that come after them"}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What config.json says; None for what it does not. Counts are per model, sizes in elements, lengths in tokens.

    For a model that takes images too, all but `model_type` is that of its text model. `full_layers` are those whose
    cache grows with the whole context: others have a window, or a state.
    """

    model_type: str | None = None
    context_length: int | None = None
    layers: int | None = None
    full_layers: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """A model as this machine has it.

    `local`: mlx_lm takes the name for a folder, and does not ask the hub. `folder` is None for a model that is not
    there; `missing` names the files that it lacks; `weight_bytes` is the size of the weights that it has.
    """

    name: str
    local: bool
    folder: Path | None = None
    missing: tuple[str, ...] = ()
    weight_bytes: int = 0
    config: ModelConfig = ModelConfig()

    @property
    def is_here(self) -> bool:
        """Whether a worker can load it without asking the hub. The hub would not bring what a folder lacks."""
        return self.folder is not None and (self.local or not self.missing)


def read_model(name: str, environ: Mapping[str, str] = os.environ) -> ModelOnDisk:
    """Look at the files of a model; `environ` says where the hub's cache is. Raises nothing: what cannot be read is
    not there.
    """
    local = is_local(name)
    folder = Path(name) if local else _snapshot(name, environ)
    if not os.path.isdir(folder):
        return ModelOnDisk(name, local)
    return ModelOnDisk(
        name,
        local,
        folder,
        missing=_missing(folder) if local else _missing_of_download(folder),
        weight_bytes=sum(_size(path) for path in folder.glob("model*.safetensors")),
        config=parse_config(_read_object(folder / "config.json")),
    )


def read_config(model: ModelOnDisk) -> dict[str, Any]:
    """The whole of a model's config.json; empty if there is none."""
    return _read_object(model.folder / "config.json") if model.folder else {}


def is_local(name: str) -> bool:
    """Whether mlx_lm takes `name` for a folder; else it asks the hub for that name."""
    return os.path.exists(name) or name.startswith(("/", "./", "../", "~"))


def are_here(names: Iterable[str], environ: Mapping[str, str]) -> bool:
    """Whether there are names, and each is a folder or a finished download: the hub need not be asked."""
    models = [read_model(name, environ) for name in names]
    return bool(models) and all(model.is_here for model in models)


def weight_bytes(names: Iterable[str], environ: Mapping[str, str] = os.environ) -> int | None:
    """Size of the weights of all these models together; None unless each is on this machine."""
    sizes = [read_model(name, environ).weight_bytes for name in names]
    return sum(sizes) if all(sizes) else None


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where huggingface_hub keeps downloads, by the same variables that it reads."""
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    found = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(found)))


def read_vocabulary(folder: Path) -> dict[int, str]:
    """Token ids and their texts, from tokenizer.json; empty if that cannot be read. Slow: it has megabytes."""
    try:
        return _vocabulary(_read_object(folder / "tokenizer.json"))
    except (AttributeError, IndexError, KeyError, TypeError):
        return {}


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # unigram models: [text, score], in order
        tokens = {number: str(entry[0]) for number, entry in enumerate(vocabulary)}
    else:
        tokens = {number: text for text, number in vocabulary.items()}
    return tokens | {token["id"]: token["content"] for token in tokenizer.get("added_tokens") or ()}


# --- files --------------------------------------------------------------------------------------------------


def _snapshot(name: str, environ: Mapping[str, str]) -> Path:
    """Where the download is, or would be."""
    repository = cache_dir(environ) / f"models--{name.replace('/', '--')}"
    try:
        return repository / "snapshots" / read_text(repository / "refs" / "main").strip()
    except (OSError, ValueError):
        return repository / "snapshots" / "none"


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none, or it may not be looked at."""
    try:
        return path.stat().st_size if os.path.isfile(path) else 0
    except OSError:
        return 0


def _missing(folder: Path) -> tuple[str, ...]:
    """The files without which mlx_lm cannot load the model."""
    index = _read_object(folder / "model.safetensors.index.json").get("weight_map")
    parts = set(map(str, index.values())) if isinstance(index, dict) else set()
    if not parts and not any(folder.glob("model*.safetensors")):
        parts = {"model.safetensors"}
    return tuple(part for part in ("config.json", *sorted(parts)) if not os.path.isfile(folder / part))


def _missing_of_download(folder: Path) -> tuple[str, ...]:
    """The same, more strictly: when in doubt, the hub is asked."""
    missing = [*_missing(folder)]
    if not os.path.isfile(folder / "tokenizer_config.json"):
        missing.append("tokenizer_config.json")
    index = folder / "model.safetensors.index.json"
    if os.path.isfile(index) and not _read_object(index).get("weight_map"):
        missing.append(index.name)
    elif not os.path.isfile(index) and not os.path.isfile(folder / "model.safetensors"):
        missing.append("model.safetensors")
    if any(folder.parents[1].glob("blobs/*.incomplete")):
        missing.append("a file that is still on its way")
    return tuple(dict.fromkeys(missing))


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty for anything else."""
    try:
        found = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# --- config.json --------------------------------------------------------------------------------------------


def parse_config(config: Mapping[str, Any]) -> ModelConfig:
    """The facts of a config. What its `text_config` says takes precedence over what it says itself."""
    text = config.get("text_config")
    own = {**config, **text} if isinstance(text, dict) else config
    layers = _count(own, "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    heads = _count(own, "num_attention_heads", "n_heads", "n_head")
    hidden = _count(own, "hidden_size", "n_embd", "d_model")
    return ModelConfig(
        model_type=config["model_type"] if isinstance(config.get("model_type"), str) else None,
        context_length=_count(
            own, "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len"
        ),
        layers=layers,
        full_layers=_full_layers(own, layers),
        kv_heads=_count(own, "num_key_value_heads", "num_kv_heads") or heads,
        head_size=_count(own, "head_dim") or (hidden // heads if hidden and heads else None),
    )


def _full_layers(config: Mapping[str, Any], layers: int | None) -> int | None:
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return sum(kind in {"full_attention", "attention"} for kind in kinds)
    one_in = _count(config, "sliding_window_pattern", "full_attention_interval") or 1
    return layers and layers // one_in


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a whole number above 0: models name the same thing differently."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)
