"""Hostfiles, as mlx.launch takes them: the machines over which a profile's model is split."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil

from draftd.files import MAX_CONFIG, read_text
from draftd.toml_lines import nul_in


def with_hostfile(group: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of `[distributed]` together with its hostfile's. Raises ValueError."""
    named = group["hosts"]
    if not isinstance(named, str) or not named or "\0" in named:
        raise ValueError("must be the path of a hostfile, as mlx.distributed_config writes it")
    file = folder / os.path.expanduser(named)
    said = _read(file)
    hosts, pairs = said.get("hosts"), said.get("envs") or []
    if not isinstance(hosts, list) or not all(isinstance(host, dict) and "ssh" in host for host in hosts):
        raise ValueError(
            f"{file} is not a hostfile: it needs hosts, a list of objects with ssh, ips and rdma"
        )
    if not isinstance(pairs, list) or not all(isinstance(pair, str) and "=" in pair for pair in pairs):
        raise ValueError(f"{file}: envs must be a list of strings such as 'NAME=value'")
    made: dict[str, Any] = {"hosts": [{**host, "local": _is_here(host)} for host in hosts]}
    if said.get("backend"):
        made["backend"] = group.get("backend", said["backend"])
    env, own = dict(pair.split("=", 1) for pair in pairs), group.get("env", {})
    return made | {"env": env | own if isinstance(own, dict) else own}  # what is no table is refused later


def _read(file: Path) -> dict[str, Any]:
    """The object in a hostfile; a list stands for its hosts. Raises ValueError."""
    try:
        said = json.loads(read_text(file, most=MAX_CONFIG))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if (nul := nul_in(said)) is not None:
        raise ValueError(f"{file}: {'.'.join(map(str, nul[0]))}: {nul[1]}")
    if isinstance(said, list):
        return {"hosts": said}
    return said if isinstance(said, dict) else {}


def _is_here(host: dict[str, Any]) -> bool:
    """Whether an entry of a hostfile is this machine, by its name or by one of its addresses."""
    name = str(host["ssh"]).rpartition("@")[2].lower()
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    if name in {"127.0.0.1", "::1", "localhost", own, short, f"{short}.local"}:
        return True
    addresses = {address.address for each in psutil.net_if_addrs().values() for address in each}
    return name in addresses
