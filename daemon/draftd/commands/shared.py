"""What the commands share: common options, and how to reach the running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.instance import find_daemon
from draftd.ops.generation import OpenAIServer
from draftd.ops.http import DaemonClient, RefusedError
from draftd.settings import Settings, load_settings
from draftd.tls import served


def complete_profile(incomplete: str) -> list[str]:
    """For the shell: names that begin like this, else their last words, as in `draftd up fast`."""
    from draftd.profile_files import load_for

    try:
        settings = load_settings()
        names = load_for(settings).profiles
    except DraftdError:  # the command itself reports a broken file
        return []
    last_words = [name.rpartition("-")[2] for name in names]
    fitting = [name for name in names if name.startswith(incomplete)]
    return fitting or [word for word in last_words if word.startswith(incomplete)]


def complete_log(incomplete: str) -> list[str]:
    """The same, and the name of the daemon's own log."""
    return [*complete_profile(incomplete), *(["daemon"] if "daemon".startswith(incomplete) else [])]


def complete_prompt(incomplete: str) -> list[str]:
    """For the shell: names of prompts that begin like this."""
    from draftd.prompt_files import find_prompts

    try:
        names = [prompt.name for prompt in find_prompts(load_settings().prompt_dirs(), ())]
    except DraftdError:
        return []
    return [name for name in names if name.startswith(incomplete)]


Follow = Annotated[bool, typer.Option("-f", "--follow", help="Keep printing new lines.")]
NewestLines = Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the newest lines.")]
StateDir = Annotated[
    Path | None, typer.Option(help="Folder with the lock, the daemon's address and the logs.")
]
ProfilesDir = Annotated[Path | None, typer.Option(help="Folder with the profile files (*.toml).")]
ProfileArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        help="Name, alias or any unambiguous part of a name.",
        autocompletion=complete_profile,
    ),
]
ProfileArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROFILE", help="Only these profiles.", autocompletion=complete_profile),
]


def where_it_runs(settings: Settings) -> Path:
    """The state folder of the daemon: the one that was set; without a setting the usual one or, if no daemon runs
    there, that of the installed launchd or systemd service.

    Such a service keeps the folders of the shell that installed it, and another shell may have other ones.
    """
    if "state_dir" in settings.model_fields_set:
        return settings.state_dir
    try:
        find_daemon(settings.state_dir)
    except NotRunningError:
        from draftd.ops import launchd, systemd

        installed = launchd.installed_state_dir(Path.home()) or systemd.installed_state_dir(
            systemd.unit_file()
        )
        return installed or settings.state_dir
    except ConfigError:  # a folder that is not to be trusted; whoever uses it says so
        pass
    return settings.state_dir


def settings_where_it_runs(**overrides: Path | None) -> Settings:
    """The settings, as from `load_settings`, but with the state folder of the running daemon."""
    settings = load_settings(**overrides)
    return settings.model_copy(update={"state_dir": where_it_runs(settings)})


def make_client(state_dir: Path | None) -> DaemonClient:
    """A client of the running daemon. Raises NotRunningError."""
    settings = load_settings(state_dir=state_dir)
    return DaemonClient(
        where_it_runs(settings), settings.api_key.get_secret_value() if settings.api_key else ""
    )


def make_server(state_dir: Path | None) -> OpenAIServer:
    """The running daemon as any OpenAI client sees it. Raises NotRunningError."""
    settings = load_settings(state_dir=state_dir)
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    running = make_client(state_dir).daemon
    return OpenAIServer(running.url, key, running.certificate)


def promised_address(settings: Settings) -> tuple[str, str]:
    """Where clients would reach a daemon with these settings, and the file with a certificate that they would need
    to trust, "" if none. Raises ConfigError for a certificate that cannot be used.
    """
    host = settings.own_host
    if settings.tls_cert is None:
        return settings.url_at(host), ""
    _, certificate = served(settings.tls_cert, settings.tls_key)
    return settings.url_at(certificate.host_for_clients(host)), certificate.to_trust


def resolve(client: DaemonClient, word: str | None, *, own: bool = False) -> str:
    """The name of a profile or, unless only its `own` are wanted, of a peer's model: from its name, an alias or any
    unambiguous part of it, those of profiles first; for None, the default model's.

    Raises ConfigError that names the candidates, or what the daemon says if there are none.
    """
    body = client.status()
    here = [str(row["name"]) for row in body["workers"]]
    models = {str(name) for peer in body["peers"] for name in peer["models"]}
    elsewhere = [] if own else sorted(models - set(here))
    if not (names := here + elsewhere):
        peers = "" if own else ", and no peer has told of any model yet"
        raise ConfigError(f"the daemon has no profile of its own{peers}")
    if word is None:
        return str(body["default_model"] or names[0])
    if word in names:
        return word
    try:
        return client.model(word)  # only the daemon knows the aliases
    except RefusedError as error:
        fitting = [name for name in here if word in name] or [name for name in elsewhere if word in name]
        if not fitting:
            raise ConfigError(error.reason) from None
        if len(fitting) > 1:
            raise ConfigError(f"'{word}' fits several profiles; there are: {', '.join(fitting)}") from None
        return fitting[0]
