"""Collects what the doctor judges, from the system, the model files and the running daemon. Blocking: seconds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import InvalidRequirement, Requirement

from draftd import __version__
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.instance import NOTE, find
from draftd.ops.bench.report import SAVED
from draftd.ops.doctor.facts import Daemon, Facts, Model, Port, Process, Purpose, Versions, Vocabularies
from draftd.ops.doctor.files import compare, read_model
from draftd.ops.http import Client
from draftd.profile_files import load_dir
from draftd.profiles import Profile
from draftd.settings import Settings
from draftd.sharing import groups
from draftd.sockets import holder_of, is_free_port

WATCHED = 0.3  # seconds over which the use of the processors is measured


def collect(settings: Settings) -> Facts:
    """Everything. Raises nothing for what is broken: that is a fact too."""
    profiles, config_error = _profiles(settings)
    running = _daemon(settings)
    share = settings.share_engine or _shares(running)
    models = {name: read_model(name) for name in _model_names(profiles)}
    memory = psutil.virtual_memory()
    hub_cache = _hub_cache()
    return Facts(
        version=__version__,
        versions=_versions(),
        config_error=config_error,
        profiles=profiles,
        share=share,
        ports=tuple(_ports(settings, profiles, running, share=share)),
        models=models,
        vocabularies=tuple(_vocabularies(profiles, models)),
        memory_total=memory.total,
        memory_free=memory.available,
        disk_free=_disk_free(hub_cache),
        state_dir=settings.state_dir,
        stale_note=running is None and (settings.state_dir / NOTE).exists(),
        hub_cache=hub_cache,
        hub_cache_exists=hub_cache.is_dir(),
        daemon=running,
        processes=tuple(_processes(running)),
        bench=_bench(settings.state_dir),
    )


def _profiles(settings: Settings) -> tuple[tuple[Profile, ...], str]:
    try:
        found = load_dir(settings.profiles_dir(), settings.prompt_dirs())
    except ConfigError as error:
        return (), str(error)
    return tuple(found.profiles.values()), ""


def _model_names(profiles: Iterable[Profile]) -> list[str]:
    ours = [profile for profile in profiles if not profile.command]
    return list(dict.fromkeys(name for p in ours for name in (p.model, p.draft_model) if name))


def _vocabularies(profiles: Iterable[Profile], models: Mapping[str, Model]) -> Iterator[Vocabularies]:
    pairs = dict.fromkeys((p.model, p.draft_model) for p in profiles if p.draft_model)
    for target, draft in pairs:
        if draft and models[target].folder and models[draft].folder:
            yield compare(models[target], models[draft])


def _versions() -> Versions:
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


# --- the daemon and its ports -------------------------------------------------------------------------------


def _daemon(settings: Settings) -> Daemon | None:
    try:
        running = find(settings.state_dir)
    except NotRunningError:
        return None
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    try:
        rows: tuple[Mapping[str, Any], ...] | None = tuple(
            Client(settings.state_dir, key).status()["workers"]
        )
    except DraftdError:
        rows = None
    return Daemon(running.pid, running.url, running.version, rows)


def _shares(running: Daemon | None) -> bool:
    """Whether the running daemon was told to share engines, as by `draftd up --share-engine`."""
    return any(row.get("shares_with") for row in (running.rows if running else None) or ())


def _ports(
    settings: Settings, profiles: Iterable[Profile], running: Daemon | None, *, share: bool
) -> Iterator[Port]:
    family = _family(running)
    wanted: dict[int, tuple[Purpose, str]] = {settings.port: ("proxy", "draftd")}
    profiles = list(profiles)
    wanted |= {p.port: ("fixed", p.name) for p in profiles if p.port}
    workers = groups({profile.name: profile for profile in profiles}, share=share)
    floating = sum(worker.autostart and not worker.host.port for worker in workers)
    for number in range(settings.base_port, min(settings.base_port + floating, 65536)):
        wanted.setdefault(number, ("worker", "workers"))
    for number, (purpose, owner) in sorted(wanted.items()):
        holder = None if is_free_port(number) else holder_of(number)
        ours = holder is not None and holder.pid in family
        yield Port(number, purpose, owner, holder, ours)


def _family(running: Daemon | None) -> set[int]:
    """The daemon and everything that it started."""
    if running is None:
        return set()
    with suppress(psutil.Error):
        daemon = psutil.Process(running.pid)
        return {running.pid, *(child.pid for child in daemon.children(recursive=True))}
    return {running.pid}


def _bench(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / SAVED).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


# --- the machine --------------------------------------------------------------------------------------------


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE  # late: it takes most of a second

    return Path(HF_HUB_CACHE)


def _disk_free(folder: Path) -> int:
    """Where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _processes(running: Daemon | None) -> list[Process]:
    """Those that can be seen and are neither us nor draftd's, the largest first."""
    own = _family(running) | {os.getpid(), os.getppid()}
    seen = [process for process in psutil.process_iter() if process.pid not in own]
    for process in seen:
        with suppress(psutil.Error):
            process.cpu_percent()  # begins the measurement
    time.sleep(WATCHED)
    found = []
    for process in seen:
        with suppress(psutil.Error):
            found.append(
                Process(process.pid, process.name(), process.cpu_percent(), process.memory_info().rss)
            )
    return sorted(found, key=lambda process: -process.memory)
