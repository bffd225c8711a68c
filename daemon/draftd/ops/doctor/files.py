"""Reads a model's files: where they are, how large, how its cache works, and whose vocabulary it has.

What the installed mlx_lm can do with a model type is read from its sources: importing them would load mlx.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from draftd.hub import is_local
from draftd.ops.doctor.facts import Model, Vocabularies

HUB_TIMEOUT = 5.0  # seconds
_BORROWS = re.compile(r"^from \.(\w*) import (.+)$", re.MULTILINE)
_REMAPPING = re.compile(r"^MODEL_REMAPPING = (\{.*?^\})", re.MULTILINE | re.DOTALL)
# Caches that hold a state instead of tokens, by the names that mlx_lm 0.32 gives them.
_STATE = re.compile(r"\b(ArraysCache|MambaCache)\(")
_ROTATING = re.compile(r"\bRotatingKVCache\(")


def read_model(name: str) -> Model:
    """What is known of the model `name`. Asks the hub for the size of one that is not here."""
    local = is_local(name)
    folder = _existing(Path(name)) if local else _snapshot(name)
    if folder is None:
        if local:
            return Model(name, local=True)
        size, refused = _at_the_hub(name)
        return Model(name, local=False, size=size, refused=refused)
    config = _json(folder / "config.json")
    caches, window = _caches(config)
    return Model(
        name,
        local=local,
        folder=folder,
        size=sum(path.stat().st_size for path in folder.glob("model*.safetensors")),
        missing=tuple(_missing(folder)),
        model_type=config.get("model_type"),
        caches=caches,
        window=window,
    )


def _existing(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _snapshot(name: str) -> Path | None:
    from huggingface_hub import snapshot_download  # late: it takes most of a second
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _at_the_hub(name: str) -> tuple[int | None, str]:
    """Bytes to download, None if the hub does not answer; and why it has no such model."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=HUB_TIMEOUT)
    except (HFValidationError, RepositoryNotFoundError):
        return None, "the hub has no such model, or it is private"
    except Exception:  # whatever goes wrong on the way there only means that we do not know
        return None, ""
    sizes = [
        file.size or 0 for file in info.siblings or () if Path(file.rfilename).match("model*.safetensors")
    ]
    return sum(sizes) or None, ""


def _missing(folder: Path) -> Iterator[str]:
    """The files that mlx_lm needs and that are not there."""
    if not (folder / "config.json").is_file():
        yield "config.json"
    index = _json(folder / "model.safetensors.index.json").get("weight_map", {})
    parts = sorted(set(index.values()))
    if parts:
        yield from (part for part in parts if not (folder / part).is_file())
    elif not any(folder.glob("model*.safetensors")):
        yield "model.safetensors"


def _json(path: Path) -> dict[str, Any]:
    """An object from a file; empty for whatever is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# --- caches -------------------------------------------------------------------------------------------------


def _caches(
    config: dict[str, Any],
) -> tuple[Literal["trimmable", "state", "unsupported", "unknown"], int | None]:
    """How the cache of such a model can be taken back, and the length of its window if that rotates."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or spec.origin is None or not isinstance(config.get("model_type"), str):
        return "unknown", None
    package = Path(spec.origin).parent
    source = _source(package, config["model_type"])
    if not source:
        return "unsupported", None
    if _STATE.search(source):
        return "state", None
    text = config.get("text_config") or config
    window = text.get("sliding_window") if _ROTATING.search(source) else None
    return "trimmable", window if isinstance(window, int) else None


def _source(package: Path, model_type: str) -> str:
    """The source of a model type, with that of the models whose whole text model it borrows."""
    found = _REMAPPING.search(_text(package / "utils.py"))
    model_type = (ast.literal_eval(found[1]) if found else {}).get(model_type, model_type)
    own = _text(package / "models" / f"{model_type}.py")
    borrowed = [_text(package / "models" / f"{name}.py") for name in _borrowed(own)]
    return own and "\n".join([own, *borrowed])


def _borrowed(source: str) -> Iterator[str]:
    for module, names in _BORROWS.findall(source):
        if not module:  # from . import gemma3_text
            yield from (name.strip() for name in names.split(","))
        elif re.search(r"\bModel\b", names):  # from .qwen3_5 import Model as Qwen3_5Model
            yield module


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


# --- vocabularies -------------------------------------------------------------------------------------------


def compare(target: Model, draft: Model) -> Vocabularies:
    """Token number by token number."""
    one, other = (_vocabulary(model.folder) for model in (target, draft))
    if not one or not other:
        return Vocabularies(target.name, draft.name, None)
    numbers = one.keys() | other.keys()
    differing = sum(one.get(number) != other.get(number) for number in numbers)
    return Vocabularies(target.name, draft.name, differing, len(numbers))


def _vocabulary(folder: Path | None) -> dict[int, str]:
    """Token numbers and their texts, by tokenizer.json; empty if that cannot be read."""
    found = _json(folder / "tokenizer.json") if folder else {}
    vocabulary = (found.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # unigram models: [text, score], in order
        tokens = {number: str(entry[0]) for number, entry in enumerate(vocabulary)}
    else:
        tokens = {number: text for text, number in vocabulary.items()}
    return tokens | {token["id"]: token["content"] for token in found.get("added_tokens") or ()}
