"""Collects what the doctor judges, from the system, the model files and the running daemon; and fixes what it may.

Blocks for seconds.
"""

from __future__ import annotations

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

from draftd import __version__
from draftd.auto_sharing import beginning
from draftd.errors import AlreadyRunningError, ConfigError, DraftdError, NotRunningError
from draftd.files import check_private_folder, read_text
from draftd.hub import ModelOnDisk, cache_dir, read_model, read_vocabulary
from draftd.instance import NOTE, Instance, find_daemon
from draftd.machine_memory import memory_budget
from draftd.ops.bench.report import SAVED
from draftd.ops.doctor.facts import (
    Download,
    Facts,
    OtherProgram,
    Purpose,
    RunningDaemon,
    Vocabularies,
    WantedPort,
)
from draftd.ops.doctor.versions import unsupported, versions
from draftd.ops.hosts import look
from draftd.ops.http import DaemonClient
from draftd.ops.mac_folders import guarded
from draftd.ops.pull import size_at_hub
from draftd.ops.splitting import unsplittable
from draftd.profile_files import load_for
from draftd.profiles import Profile, ProfileSet
from draftd.settings import Settings
from draftd.sharing import groups
from draftd.sockets import holders_of, is_answered, is_free_port
from draftd.tls import exposed, served

DAY = 86_400.0  # seconds
WATCHED = 0.3  # seconds over which processor use is measured


def collect(settings: Settings) -> Facts:
    """Collect everything. What is broken raises no error: it is a fact too."""
    found, config_error = _profiles(settings)
    profiles = tuple(found.profiles.values())
    state_error = _state_error(settings.state_dir)
    running = None if state_error else _daemon(settings)
    share = settings.share_engine is True or _shares(running)
    models = _read_models(profiles)
    memory = psutil.virtual_memory()
    hub_cache = cache_dir()
    certificate_days, certificate_error = _certificate(settings)
    return Facts(
        version=__version__,
        versions=versions(),
        config_error=config_error,
        state_error=state_error,
        profiles=profiles,
        share=share,
        sharing=running.sharing if running else found.sharing,
        ports=tuple(_ports(settings, profiles, running, share=share)),
        models=models,
        downloads=_downloads(models.values()),
        unsupported=frozenset(unsupported(model.config.model_type for model in models.values())),
        vocabularies=tuple(_vocabularies(profiles, models)),
        memory_total=memory.total,
        memory_share=memory_budget(settings.memory_budget),
        memory_free=memory.available,
        disk_free=_disk_free(hub_cache),
        state_dir=settings.state_dir,
        guarded=_guarded([settings.profiles_dir(), settings.state_dir, hub_cache], profiles),
        stale_note=running is None and not state_error and (settings.state_dir / NOTE).exists(),
        hub_cache=hub_cache,
        hub_cache_exists=os.path.isdir(hub_cache),
        daemon=running,
        programs=tuple(_other_programs(running)),
        bench=_bench(settings.state_dir),
        unsplittable=unsplittable(profiles, models),
        hosts=tuple(look(profiles)),
        certificate_days=certificate_days,
        certificate_error=certificate_error,
        exposed_key=exposed(key) if (key := settings.tls_key or settings.tls_cert) else "",
    )


def _profiles(settings: Settings) -> tuple[ProfileSet, str]:
    """The profiles, with `autostart` only where `draftd up` would start them; or why there are none."""
    try:
        found = load_for(settings)
    except ConfigError as error:
        return ProfileSet({}), str(error)
    started = beginning(
        found,
        start=settings.start,
        default=settings.default_profile,
        share_engine=settings.share_engine,
        memory_share=lambda: memory_budget(settings.memory_budget),
    )
    return started.profiles, ""


def _certificate(settings: Settings) -> tuple[float | None, str]:
    """The days until the certificate for https expires, None if there is none to use; and why it cannot be used."""
    if settings.tls_cert is None:
        return None, ""
    try:
        _, found = served(settings.tls_cert, settings.tls_key)
    except ConfigError as error:
        return None, str(error)
    return (found.expires - time.time()) / DAY, ""


def _state_error(folder: Path) -> str:
    try:
        check_private_folder(folder)
    except ConfigError as error:
        return str(error)
    except OSError:  # there is none yet
        pass
    return ""


def _guarded(folders: Iterable[Path], profiles: Iterable[Profile]) -> tuple[Path, ...]:
    if platform.system() != "Darwin":
        return ()
    models = (Path(name) for profile in profiles for name in profile.files if os.path.isabs(name))
    return tuple(guarded([*folders, *models], Path.home()))


def _read_models(profiles: Iterable[Profile]) -> dict[str, ModelOnDisk]:
    ours = [profile for profile in profiles if not profile.command]
    return {name: read_model(name) for profile in ours for name in profile.models}


def _downloads(models: Iterable[ModelOnDisk]) -> dict[str, Download]:
    absent = [model.name for model in models if not model.local and model.folder is None]
    return {name: Download(*size_at_hub(name)) for name in absent}


def _vocabularies(profiles: Iterable[Profile], models: Mapping[str, ModelOnDisk]) -> Iterator[Vocabularies]:
    pairs = dict.fromkeys((p.model, p.draft_model) for p in profiles if p.draft_model and not p.command)
    for target, draft in pairs:
        if draft and models[target].folder and models[draft].folder:
            yield compare(models[target], models[draft])


def compare(target: ModelOnDisk, draft: ModelOnDisk) -> Vocabularies:
    """Two vocabularies, token id by token id."""
    one, other = (read_vocabulary(model.folder) if model.folder else {} for model in (target, draft))
    if not one or not other:
        return Vocabularies(target.name, draft.name, None)
    ids = one.keys() | other.keys()
    differing = sum(one.get(number) != other.get(number) for number in ids)
    return Vocabularies(target.name, draft.name, differing, len(ids))


# --- the daemon and its ports -------------------------------------------------------------------------------


def _daemon(settings: Settings) -> RunningDaemon | None:
    try:
        running = find_daemon(settings.state_dir)
    except NotRunningError:
        return None
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    try:
        body = DaemonClient(settings.state_dir, key).status()
    except DraftdError:
        return RunningDaemon(running.pid, running.url, running.version, None)
    rows = tuple(body["workers"])
    return RunningDaemon(running.pid, running.url, running.version, rows, body.get("sharing") or "")


def _shares(running: RunningDaemon | None) -> bool:
    """Whether the running daemon was told to share engines, as with `draftd up --share-engine`."""
    return any(row.get("shares_with") for row in (running.rows if running else None) or ())


def _ports(
    settings: Settings, profiles: Iterable[Profile], running: RunningDaemon | None, *, share: bool
) -> Iterator[WantedPort]:
    family = _family(running)
    wanted: dict[int, tuple[Purpose, str]] = {settings.port: ("proxy", "draftd")}
    profiles = list(profiles)
    wanted |= {p.port: ("fixed", p.name) for p in profiles if p.port}
    workers = groups({profile.name: profile for profile in profiles}, share=share)
    floating = sum(worker.autostart and not worker.host.port for worker in workers)
    for number in range(settings.base_port, min(settings.base_port + floating, 65536)):
        wanted.setdefault(number, ("worker", "workers"))
    for number, (purpose, owner) in sorted(wanted.items()):
        answered = purpose == "proxy" and is_answered(settings.host, number)
        if is_free_port(number) and not answered:
            yield WantedPort(number, purpose, owner)
            continue
        holders = holders_of(number)
        pids = tuple(process.pid for process in holders.processes)
        ours = bool(pids) and family.issuperset(pids)
        yield WantedPort(number, purpose, owner, str(holders), pids, ours=ours)


def _family(running: RunningDaemon | None) -> set[int]:
    """The daemon and everything that it started."""
    if running is None:
        return set()
    with suppress(psutil.Error):
        daemon = psutil.Process(running.pid)
        return {running.pid, *(child.pid for child in daemon.children(recursive=True))}
    return {running.pid}


def _bench(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(read_text(folder / SAVED, links=False))
    except (OSError, ValueError):
        return None
    return found


# --- the machine --------------------------------------------------------------------------------------------


def _disk_free(folder: Path) -> int:
    """Free bytes on the disk where `folder` is or will be."""
    while not os.path.exists(folder):  # unlike Path's own, no error where it may not be looked at
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _other_programs(running: RunningDaemon | None) -> list[OtherProgram]:
    """Programs that are neither this one nor draftd's, as far as they can be seen; the largest first."""
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
                OtherProgram(process.pid, process.name(), process.cpu_percent(), process.memory_info().rss)
            )
    return sorted(found, key=lambda process: -process.memory)


# --- what may be fixed --------------------------------------------------------------------------------------


def fix(facts: Facts) -> Iterator[str]:
    """Fix what is safe to fix: nothing that a person wrote or that runs. A sentence for each thing done."""
    folder = facts.state_dir
    if facts.stale_note:
        # Holding the folder as a daemon does, so that no daemon can be starting.
        with suppress(AlreadyRunningError), Instance(folder):
            (folder / NOTE).unlink(missing_ok=True)
            yield f"removed {folder / NOTE}, which an earlier daemon had left behind"
    if not facts.hub_cache_exists:
        facts.hub_cache.mkdir(parents=True, exist_ok=True)
        yield f"created {facts.hub_cache}"
