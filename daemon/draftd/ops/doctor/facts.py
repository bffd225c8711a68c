"""What the doctor knows before it judges, and the findings it comes to: plain values. Sizes are in bytes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from draftd.hub import ModelOnDisk
from draftd.profiles import Profile


@dataclass(frozen=True, slots=True)
class Versions:
    """`mlx` and `mlx_lm` are None where not installed; `mlx_wanted` is what mlx_lm requires of mlx, as '>=0.32.2'.

    `system` is platform.system(); `system_version` is the version of macOS, and "" elsewhere.
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
class WantedPort:
    """A port that draftd wants for the proxy or for the profile `owner`.

    `held` says in words who holds it, "" if it is free; `pids` are the holders', where the system tells. `ours`:
    all of them belong to the running daemon and its workers.
    """

    number: int
    purpose: Purpose
    owner: str
    held: str = ""
    pids: tuple[int, ...] = ()
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """A model that is not on this machine: its size, None if the hub does not answer; and why it cannot be had."""

    size: int | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """Two models' vocabularies compared.

    `differing` of `size` token ids mean different texts to them; None if a tokenizer cannot be read. Embeddings
    that are padded to different sizes do not matter: the engine cuts them to the target's.
    """

    target: str
    draft: str
    differing: int | None
    size: int = 0


@dataclass(frozen=True, slots=True)
class OtherProgram:
    """A process that is not ours. `cpu` in percent of one processor."""

    pid: int
    name: str
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """The daemon, as its note and /api/status describe it; `rows` is None if it does not answer. `sharing` as in
    Facts.
    """

    pid: int
    url: str
    version: str
    rows: tuple[Mapping[str, Any], ...] | None
    sharing: str = ""


@dataclass(frozen=True, slots=True)
class HostReport:
    """One machine of a profile's group. `host` is "" for this one.

    `unreachable` says why ssh cannot reach it, `broken` why draftd does not run there; "" if all is well.
    `differing` are programs with another version than here, such as "mlx 0.31.0 (here 0.32.4)"; `missing` are
    models that it lacks, `strange` the addresses in the hostfile that are not its own; its clock is `clock_off`
    seconds ahead of ours.
    """

    profile: str
    host: str
    unreachable: str = ""
    broken: str = ""
    differing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    clock_off: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything there is to judge.

    `state_error` says why the state folder is not to be trusted, "" if it is. `models` has every model of the
    profiles, `downloads` those that are not here. `unsupported` are the model types among them that the installed
    mlx_lm does not know. `share` tells whether profiles that do not say otherwise share an engine, `sharing` what
    draftd has decided about that, "" if nothing. `bench` is the report of the last `draftd bench`, None if there is
    none. `memory_share` is what all workers together may take of the memory, on a Mac as its GPU says. `guarded`
    are the folders in use that macOS does not let a launchd agent read. `unsplittable` says for each profile why
    its model cannot be split over ranks, and `hosts` is what was found on the machines of such profiles. The
    certificate for https expires in `certificate_days`, None if plain http is served, and `certificate_error` says
    why it cannot be used; `exposed_key` says who else can read its key, "" if nobody can.
    """

    version: str
    versions: Versions
    config_error: str = ""
    state_error: str = ""
    profiles: tuple[Profile, ...] = ()
    share: bool = False
    sharing: str = ""
    ports: tuple[WantedPort, ...] = ()
    models: Mapping[str, ModelOnDisk] = field(default_factory=dict)
    downloads: Mapping[str, Download] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()
    vocabularies: tuple[Vocabularies, ...] = ()
    memory_total: int = 0
    memory_share: int = 0
    memory_free: int = 0
    disk_free: int = 0
    state_dir: Path = Path()
    guarded: tuple[Path, ...] = ()
    stale_note: bool = False
    hub_cache: Path = Path()
    hub_cache_exists: bool = True
    daemon: RunningDaemon | None = None
    programs: tuple[OtherProgram, ...] = ()
    bench: Mapping[str, Any] | None = None
    unsplittable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: tuple[HostReport, ...] = ()
    certificate_days: float | None = None
    certificate_error: str = ""
    exposed_key: str = ""


class Severity(IntEnum):
    """FINE says what was looked at and found well; a NOTE needs no action; what is an ERROR cannot work."""

    FINE = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, why it matters and what to do. `topic` groups; `why` and `do` are empty where all is well."""

    severity: Severity
    topic: str
    what: str
    why: str = ""
    do: str = ""


Check = Callable[[Facts], Iterable[Finding]]
