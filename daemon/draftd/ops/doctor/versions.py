"""Which versions are installed here, and what the installed mlx_lm knows, without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from draftd.ops.doctor.facts import Versions

# mlx_lm.utils.MODEL_REMAPPING of 0.32: model types that are served by the file of another.
OTHER_NAMES = {
    "mistral": "llama",
    "llava": "mistral3",
    "phi-msft": "phixtral",
    "falcon_mamba": "mamba",
    "joyai_llm_flash": "deepseek_v3",
    "kimi_k2": "deepseek_v3",
    "qwen2_5_vl": "qwen2_vl",
    "minimax_m2": "minimax",
    "iquestcoder": "llama",
    "xverse": "llama",
    "gemma4_unified": "gemma4",
    "deepseek_v41_text": "deepseek_v41",
}


def versions() -> Versions:
    return Versions(
        python=platform.python_version(),
        processor=platform.machine(),
        system=platform.system(),
        system_version=platform.mac_ver()[0],
        mlx=_version("mlx"),
        mlx_lm=_version("mlx-lm"),
        mlx_wanted=_mlx_wanted(),
    )


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _mlx_wanted() -> str:
    """What the installed mlx-lm asks of mlx: plainly on a Mac, by its extra `cpu` on Linux."""
    with suppress(importlib.metadata.PackageNotFoundError, InvalidRequirement):
        for text in importlib.metadata.requires("mlx-lm") or ():
            wanted = Requirement(text)
            marker = wanted.marker
            applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", "cpu"))
            if wanted.name == "mlx" and applies:
                return str(wanted.specifier)
    return ""


def unsupported(types: Iterable[str | None]) -> Iterator[str]:
    """The model types that the installed mlx_lm has no file for. Importing mlx_lm would load mlx: seconds."""
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "models"
    for name in {name for name in types if name}:
        if not (folder / f"{OTHER_NAMES.get(name, name)}.py").is_file():
            yield name
