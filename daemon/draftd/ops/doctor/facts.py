"""What the doctor knows before it judges: plain values, collected by doctor_collect. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from draftd.profiles import Profile
from draftd.sockets import Holder


@dataclass(frozen=True, slots=True)
class Versions:
    """`mlx` and `mlx_lm` are None where not installed; `mlx_wanted` is mlx_lm's own requirement, as '>=0.32.2'.

    `system` is platform.system(), `system_version` that of macOS or "".
    """

    python: str
    processor: str
    system: str
    system_version: str
    mlx: str | None
    mlx_lm: str | None
    mlx_wanted: str


Purpose = Literal["proxy", "fixed", "worker"]


@dataclass(frozen=True, slots=True)
class Port:
    """A port that draftd wants. `ours` tells that the running daemon or one of its workers holds it."""

    number: int
    purpose: Purpose
    owner: str
    holder: Holder | None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is on this machine.

    `folder` is None for a hub model that is not downloaded; then `size` is what the hub says, None for unknown,
    and `refused` why the hub has none. `caches`: how its cache can be taken back, by the installed mlx_lm;
    `window` is the length of its sliding window in tokens, if it has one that rotates.
    """

    name: str
    local: bool
    folder: Path | None = None
    size: int | None = None
    missing: tuple[str, ...] = ()
    refused: str = ""
    model_type: str | None = None
    caches: Literal["trimmable", "state", "unsupported", "unknown"] = "unknown"
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """Two tokenizers compared: how many of `size` token numbers mean different texts; None if not to be read."""

    target: str
    draft: str
    differing: int | None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """Another process. `cpu` in percent of one processor."""

    pid: int
    name: str
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Daemon:
    """The running daemon, as its note and /api/status tell; `rows` is None if it does not answer."""

    pid: int
    url: str
    version: str
    rows: tuple[Mapping[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything there is to judge. `bench` is the report of the last `draftd bench`, None for none; `share` tells
    whether profiles that do not say otherwise share an engine.
    """

    version: str
    versions: Versions
    config_error: str = ""
    profiles: tuple[Profile, ...] = ()
    share: bool = False
    ports: tuple[Port, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)
    vocabularies: tuple[Vocabularies, ...] = ()
    memory_total: int = 0
    memory_free: int = 0
    disk_free: int = 0
    state_dir: Path = Path()
    stale_note: bool = False
    hub_cache: Path = Path()
    hub_cache_exists: bool = True
    daemon: Daemon | None = None
    processes: tuple[Process, ...] = ()
    bench: Mapping[str, Any] | None = None
