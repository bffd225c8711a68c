"""Why a profile's model cannot be split over ranks, as far as its files and the installed mlx_lm show."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from packaging.version import Version

from draftd.files import read_text
from draftd.hub import ModelOnDisk, read_config
from draftd.ops.doctor.versions import OTHER_NAMES
from draftd.profiles import Profile
from draftd.protocol import NO_MPIRUN, mpirun_path
from draftd.sharded_models import INDEX, PIPELINE, misfits

MIN_RDMA_MACOS = "26.2"
_SHARDS = re.compile(r"^    def shard\(", re.MULTILINE)
_PIPELINES = re.compile(r"\(.*PipelineMixin.*\):|^    def pipeline\(", re.MULTILINE)
_PARENTS = re.compile(r"^from \.(\w+) import .*Model", re.MULTILINE)


def unsplittable(
    profiles: Iterable[Profile], models: Mapping[str, ModelOnDisk]
) -> dict[str, tuple[str, ...]]:
    """The reasons by profile, for those whose model cannot be split."""
    found = {one.name: tuple(refusals(one, models[one.model])) for one in profiles if one.distributed}
    return {name: reasons for name, reasons in found.items() if reasons}


def refusals(profile: Profile, model: ModelOnDisk) -> Iterator[str]:
    """Why a profile's target model cannot be split over its ranks; of a model that is not here, little is known."""
    group = profile.distributed
    if group is None:
        return
    if group.backend == "jaccl" and not _has_rdma():
        yield (
            f"backend jaccl needs macOS {MIN_RDMA_MACOS} or later and Thunderbolt 5, and this machine has"
            f" {platform.system()} {platform.mac_ver()[0] or platform.release()}; backend = 'ring' needs neither"
        )
    path = mpirun_path(group.python or sys.executable, os.environ.get("PATH", ""))
    if group.backend == "mpi" and shutil.which("mpirun", path=path) is None:
        yield NO_MPIRUN
    if model.folder is None:
        return
    kind = model.config.model_type or ""
    if not can_split(kind, group.mode):
        other = "pipeline" if group.mode == "tensor" else "tensor"
        hint = f"; mode = {other!r} would work" if can_split(kind, other) else ""
        yield f"mlx_lm cannot split models of type {kind} in {group.mode} mode{hint}"
        return
    yield from misfits(read_config(model), group.size, group.mode)
    if group.mode == PIPELINE and not (model.folder / INDEX).is_file():
        yield f"a pipeline needs {INDEX}, and the model has none: mlx_lm.convert writes it for large models"


def _has_rdma() -> bool:
    """Whether this system is new enough for RDMA over Thunderbolt; what is plugged in nobody knows from here."""
    version = platform.mac_ver()[0]
    return bool(version) and Version(version) >= Version(MIN_RDMA_MACOS)


@cache
def can_split(model_type: str, mode: str) -> bool:
    """Whether the installed mlx_lm has what a mode needs for a model type; True if that cannot be known. Its files
    are read, not imported, as importing them would load mlx.
    """
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or spec.origin is None:
        return True
    folder = Path(spec.origin).parent / "models"
    wanted = _PIPELINES if mode == PIPELINE else _SHARDS
    return _says(folder, OTHER_NAMES.get(model_type, model_type), wanted, depth=2)


def _says(folder: Path, name: str, wanted: re.Pattern[str], depth: int) -> bool:
    """Whether a model's file has it, or the file of a model that it is derived from."""
    try:
        text = read_text(folder / f"{name}.py")
    except OSError:
        return depth == 2  # a type that mlx_lm does not know is reported elsewhere
    if wanted.search(text):
        return True
    parents = set(_PARENTS.findall(text)) - {"base", "cache", "pipeline"}
    return depth > 0 and any(_says(folder, parent, wanted, depth - 1) for parent in parents)
