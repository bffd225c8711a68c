"""What a daemon in the background is started with, by launchd or by systemd: the command, and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from draftd.errors import ConfigError

SECRET = "DRAFTD_API_KEY"  # noqa: S105 - the name of a variable; launchd and systemd both show its value to others
PATH_VARIABLES = {
    "DRAFTD_CONFIG",
    "DRAFTD_PROFILES",
    "DRAFTD_STATE_DIR",
    "DRAFTD_LOG_FILE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN_PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
}
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}  # in either case
SLACK = 20  # seconds between the daemon's own longest stop and SIGKILL


def program(python: Path) -> tuple[str, ...]:
    """draftd by an absolute path: the command beside this Python, else the module."""
    command = python.parent / "draftd"
    return (str(command),) if os.access(command, os.X_OK) else (str(python), "-m", "draftd")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the daemon needs from the user's environment to find what a shell finds: draftd's settings and folders,
    the models and the way to the hub, the programs. A proxy with a password in its address is left out, as others
    may read what a service is given.

    Raises ConfigError if the API key is there, or keys of peers: they may not go into a service, which without its
    own would let anyone in.
    """
    environ = {key: value for key, value in environ.items() if value}  # an empty one is unset
    if SECRET in map(str.upper, environ):
        raise ConfigError(
            f"{SECRET} cannot go into the service, which others may read: put api_key into draftd.toml"
        )
    if "api_key" in environ.get("DRAFTD_PEERS", ""):
        raise ConfigError(
            "DRAFTD_PEERS has keys and cannot go into the service, which others may read: put [[peers]] into"
            " draftd.toml"
        )
    kept = {
        key: value
        for key, value in environ.items()
        if key.startswith("DRAFTD_") or key in PATH_VARIABLES | {"HF_ENDPOINT"}
    }
    kept |= {key: value for key, value in environ.items() if key.upper() in PROXIES and "@" not in value}
    # The service starts in another folder.
    paths = {key: os.path.abspath(os.path.expanduser(kept[key])) for key in kept.keys() & PATH_VARIABLES}
    if "PATH" in environ:
        kept["PATH"] = os.pathsep.join(filter(os.path.isabs, environ["PATH"].split(os.pathsep)))
    return kept | paths
