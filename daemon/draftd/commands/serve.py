"""`draftd up`: the daemon in the foreground, with its workers and their requests as they come and go."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from draftd.auto_sharing import beginning, shared_where_needed
from draftd.commands.live_view import LiveView, writing
from draftd.commands.shared import ProfileArguments, ProfilesDir, StateDir
from draftd.console import err, what_next
from draftd.errors import ConfigError, DraftdError
from draftd.first_start import FirstStart
from draftd.hub import weight_bytes
from draftd.instance import is_agent, wait_until_free
from draftd.machine_memory import memory_budget
from draftd.ops.mac_folders import wait_for_volumes
from draftd.ops.profile_checks import setting_faults
from draftd.profile_files import load_dir, load_for
from draftd.profiles import Profile, ProfileSet, select
from draftd.settings import Settings, load_settings, shipped_dir
from draftd.sharing import could_share
from draftd.status_table import memory

if TYPE_CHECKING:
    from draftd.daemon import Daemon
    from draftd.telemetry.logging_setup import Format
    from draftd.telemetry.rotating_file import RotatedStream

SETTLED = {"ready", "failed", "stopped", "asleep", "backoff"}


def up(
    names: ProfileArguments = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve the built-in demo models.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. (default: 8080)")] = None,
    base_port: Annotated[int | None, typer.Option(help="First port for workers. (default: 8000)")] = None,
    profiles: ProfilesDir = None,
    state_dir: StateDir = None,
    share_engine: Annotated[
        bool | None,
        typer.Option(
            "--share-engine/--no-share-engine",
            help="One worker for all profiles of the same models. (default: if memory is short)",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Start all workers, even where memory is short.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="A line per event, and no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per event.")] = False,
) -> None:
    """Run the daemon in the foreground.

    Example: draftd up fast --port 8090
    """
    import uvloop

    from draftd.app import run
    from draftd.signals import handle_signals
    from draftd.telemetry.logging_setup import configure

    settings = load_settings(
        host=host,
        port=port,
        base_port=base_port,
        profiles=profiles,
        state_dir=state_dir,
        share_engine=share_engine,
        start="all" if everything else None,
    )
    if is_agent():
        wait_for_volumes((settings.profiles_dir(), settings.state_dir), err.say)
        wait_until_free(settings.state_dir, err.say)
    if not demo:
        _refuse_setting_faults(settings)
    load = _demo(settings, names or []) if demo else _loader(settings, names or [])
    watched = () if demo else (settings.profiles_dir(), *settings.prompt_dirs())
    stream = _log_stream(settings.log_file) if settings.log_file else None
    found = load()
    told = _decided(found, () if demo or names else _beginning(settings).lines)
    savings = [] if found.sharing else _savings(found, settings)
    fmt = _format(settings, as_json=as_json)
    view = LiveView(err) if err.is_terminal and not plain and not as_json else None
    if view:
        view.name(found.profiles)
    configure(fmt, settings.log_level, stream or (None if view else sys.stderr))
    takers = (
        [writing(lambda lines: stream.write(f"{lines}\n"), fmt)]
        if stream
        else []
        if view
        else [writing(err.data, fmt)]
    )

    async def beside(daemon: Daemon) -> None:
        handle_signals(daemon)
        daemon.chronicle.on_ended += [*takers, *([view.take] if view else [])]
        if view:
            view.follow(daemon, asyncio.get_running_loop())
        if not as_json:
            await _show_start(daemon, told, savings, view.say if view else _say)

    try:
        with view.running(settings.log_level) if view else nullcontext():
            uvloop.run(run(settings, load, beside, watched=watched, demo=demo))
    except BaseExceptionGroup as group:
        raise _cause(group) from None


def _say(text: str) -> None:
    """Say it, if anybody takes it: a daemon does not end with the one who read its stderr, nor with a full disk."""
    with suppress(OSError):
        err.say(text)


def _format(settings: Settings, *, as_json: bool) -> Format:
    """The format of the log's lines: for people, unless they go to a file or the settings say otherwise."""
    if settings.log_format == "auto":
        return "json" if as_json or settings.log_file else "console"
    return "json" if as_json else settings.log_format


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error, if the group holds only such as a person can act on; else the whole group, which shows a bug."""
    _, others = group.split((DraftdError, OSError))
    found: BaseException = group
    while others is None and isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _log_stream(file: Path) -> RotatedStream:
    """The daemon's own log. If it cannot be written, that must be said now: later there is nowhere to say it."""
    from draftd.telemetry.rotating_file import RotatedStream

    # What /dev/stdout leads to may be a pipe as well: whoever names that wants it.
    if file.is_fifo() and not os.path.realpath(file).startswith(("/dev/", "/proc/")):
        text = f"the log file {file} is a named pipe: the daemon would stand still with its reader"
        raise ConfigError(text)
    stream = RotatedStream(file)
    try:
        stream.write("")
    except OSError as error:
        raise ConfigError(f"the log file {file} cannot be written: {error.strerror}") from error
    return stream


def _loader(settings: Settings, names: list[str]) -> Callable[[], ProfileSet]:
    """All profiles that were named start, however much memory they take."""
    if not names:
        return lambda: _beginning(settings).profiles
    return lambda: _sharing(settings, select(load_for(settings), names))


def _beginning(settings: Settings) -> FirstStart:
    return beginning(
        load_for(settings),
        start=settings.start,
        default=settings.default_profile,
        share_engine=settings.share_engine,
        memory_share=lambda: memory_budget(settings.memory_budget),
    )


def _sharing(settings: Settings, given: ProfileSet) -> ProfileSet:
    return shared_where_needed(given, settings.share_engine, lambda: memory_budget(settings.memory_budget))


def _refuse_setting_faults(settings: Settings) -> None:
    found = load_for(settings)
    if problems := tuple(setting_faults(settings, found)):
        raise ConfigError("the settings are not valid", problems)


def _demo(settings: Settings, names: list[str]) -> Callable[[], ProfileSet]:
    load = _demo_loader(names)
    return lambda: _sharing(settings, load())


def _demo_loader(names: list[str]) -> Callable[[], ProfileSet]:
    """The presets, with the demo pair in place of their models. Other shipped profiles are left out."""
    from draftd.demo import DRAFT, TARGET

    shipped = load_dir(shipped_dir("profiles"), (shipped_dir("prompts"),))
    preset_models = {profile.models for profile in shipped.profiles.values() if profile.autostart}
    models = {"model": str(TARGET), "draft_model": str(DRAFT)}
    demo = {
        name: profile.model_copy(update=models)
        for name, profile in shipped.profiles.items()
        if profile.models in preset_models
    }
    return lambda: select(replace(shipped, profiles=demo), names)


def what_sharing_saves(profiles: Iterable[Profile], *, share: bool) -> Iterator[str]:
    """A line for each set of workers that hold the same weights and could be one."""
    for apart in could_share(profiles, share=share):
        names = ", ".join(name for group in apart for name in group.names)
        size = weight_bytes(apart[0].host.models)
        saved = f", and saves {memory((len(apart) - 1) * size)} of weights" if size else ""
        yield (
            f"{len(apart)} workers hold the same weights: with share_engine = true (--share-engine) one worker "
            f"serves {names} in one queue{saved}\n"
        )


def _decided(found: ProfileSet, waits: Iterable[str]) -> list[str]:
    """What was decided about the workers: which profiles share one, and which wait for a first request."""
    return [*([found.sharing] if found.sharing else []), *waits]


def _savings(found: ProfileSet, settings: Settings) -> list[str]:
    return [*what_sharing_saves(found.profiles.values(), share=settings.share_engine is True)]


async def _show_start(
    daemon: Daemon, decided: Iterable[str], savings: list[str], show: Callable[[str], None]
) -> None:
    """Say at once what was decided about the workers, and why; once every worker has settled, what could be saved,
    and what to try next.
    """
    for line in decided:
        show(line)
    await _until_settled(daemon)
    if not daemon.states():
        names = ", ".join(peer.name for peer in daemon.settings.peers) or "machines that it finds"
        show(f"draftd serves at {daemon.url}/v1. It has no profile of its own: all requests go to {names}\n")
    if "ready" in daemon.states():
        to_trust = daemon.certificate.to_trust if daemon.certificate else ""
        show("\n".join([*savings, what_next(daemon.url, daemon.default_model, _command(), to_trust)]))


async def _until_settled(daemon: Daemon) -> None:
    while daemon.states() - SETTLED:
        await daemon.until_changed()


def _command() -> str:
    """'draftd', or how it was started if the shell would not find that, as after `make demo`."""
    if shutil.which("draftd"):
        return "draftd"
    return f"{sys.executable} -m draftd" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
