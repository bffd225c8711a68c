"""Whether all that a worker loads is on this machine already, so that it need not, and must not, ask the hub.

Reads the hub's cache as its documentation lays it out (refs/main names the folder in snapshots/): importing
huggingface_hub would cost the daemon most of a second and 20 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from draftd.profiles import Profile


def at_hand(profile: Profile, env: Mapping[str, str]) -> bool:
    """Whether every model of the profile is a folder or a finished download. False for a foreign command, whose
    files nobody here knows.
    """
    names = [name for name in (profile.model, profile.draft_model, profile.adapter_path) if name]
    return not profile.command and all(_is_folder(name) or _is_downloaded(name, env) for name in names)


def size(profile: Profile, env: Mapping[str, str]) -> int | None:
    """Bytes of the target's and the draft's weights; None unless both are on this machine."""
    names = [name for name in (profile.model, profile.draft_model) if name]
    sizes = [_size(Path(name) if _is_folder(name) else _snapshot(name, env)) for name in names]
    return sum(sizes) if all(sizes) else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model*.safetensors"))


def _is_folder(name: str) -> bool:
    return Path(name).is_dir()


def _snapshot(name: str, env: Mapping[str, str]) -> Path:
    """Where the download is, or would be."""
    repo = _cache(env) / f"models--{name.replace('/', '--')}"
    try:
        return repo / "snapshots" / (repo / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return repo / "snapshots" / "none"


def _is_downloaded(name: str, env: Mapping[str, str]) -> bool:
    """In doubt False: the worker then asks the hub, which fetches what is missing."""
    folder = _snapshot(name, env)
    try:
        index = folder / "model.safetensors.index.json"
        parts = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else set()
        needed = {"config.json", "tokenizer_config.json"} | (parts or {"model.safetensors"})
        return all((folder / part).exists() for part in needed) and not any(
            folder.parents[1].glob("blobs/*.incomplete")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _cache(env: Mapping[str, str]) -> Path:
    if cache := env.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"
