"""What to start for a profile: its argv, its environment, and a fingerprint that tells when a restart is needed.

Pure.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from draftd.profiles import Profile
from draftd.protocol import (
    ENGINE_MODULE,
    GROUP_MODULE,
    GROUP_VARIABLE,
    GUARDIAN_MODULE,
    PROMPT_STORE_VARIABLE,
    SPARE_MODULE,
    GroupPlan,
    Member,
    PromptStore,
)

HOST = "127.0.0.1"  # workers are never reachable from another machine
ENGINE = [sys.executable, "-m", ENGINE_MODULE]
GROUP = [sys.executable, "-m", GROUP_MODULE]  # takes the same flags, for each of its ranks
SPARE = [sys.executable, "-m", SPARE_MODULE]  # waits for the arguments that follow ENGINE


def argv(profile: Profile, port: int) -> list[str]:
    """The child's command line. A foreign `command` runs under a guardian, so that it ends with us."""
    if profile.command:
        filled = (
            part.replace("{port}", str(port)).replace("{model}", profile.model) for part in profile.command
        )
        return [sys.executable, "-m", GUARDIAN_MODULE, *filled]
    args = [
        *(GROUP if profile.distributed else ENGINE),
        "--model",
        profile.model,
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    # Browsers may not call a worker directly: its only origin is itself.
    args += ["--allowed-origins", f"http://{HOST}:{port}"]
    if profile.draft_model:
        args += ["--draft-model", profile.draft_model, "--num-draft-tokens", str(profile.draft_length)]
    if profile.adapter_path:
        args += ["--adapter-path", profile.adapter_path]
    if profile.distributed and profile.distributed.mode == "pipeline":
        args.append("--pipeline")
    return args + _flags(profile.server.model_dump(exclude_none=True))


def has_channel(argv: Sequence[str]) -> bool:
    """Whether this command line starts our engine, or a group of them."""
    return any(list(argv[: len(start)]) == start for start in (ENGINE, GROUP))


def group_plan(profile: Profile) -> GroupPlan | None:
    """The ranks of a profile that has several; None for any other."""
    group = profile.distributed
    if group is None:
        return None
    here = [Member("", (HOST,))] * (group.ranks or 0)
    there = [Member("" if one.local else one.ssh, one.ips, one.rdma) for one in group.hosts]
    return GroupPlan((*here, *there), group.backend, group.port, group.python or "", group.env)


def _flags(values: Mapping[str, Any]) -> list[str]:
    args: list[str] = []
    for key, value in values.items():
        flag = "--" + key.replace("_", "-")
        if value is True:
            args.append(flag)
        elif value is not False:
            args += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return args


def environment(
    base: Mapping[str, str],
    *,
    offline: bool,
    store: PromptStore | None = None,
    group: GroupPlan | None = None,
) -> dict[str, str]:
    """The child's environment: the daemon's own, without what is meant for (or secret to) the daemon.

    `offline` keeps it from asking the model hub; for models whose weights are on this machine. `store` is where it
    keeps prompt caches, if it keeps any; `group` says where its ranks run, if it has several.
    """
    # Upper case or lower: pydantic-settings reads draftd_api_key as well.
    env = {key: value for key, value in base.items() if not key.upper().startswith("DRAFTD_")}
    # What lies in the folder that the daemon was started in, such as mlx-lm, must not shadow what is installed.
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {PROMPT_STORE_VARIABLE: store.text()} if store else {}
    env |= {GROUP_VARIABLE: group.text()} if group else {}
    return env | {"HF_HUB_OFFLINE": "1"} if offline else env


def fingerprint(profile: Profile) -> str:
    """Equal for two profiles exactly when a running child of the one can serve the other.

    The draft length is not part of it: the daemon sends it with each request.
    """
    parts: dict[str, Any] = {
        "argv": argv(profile.model_copy(update={"num_draft_tokens": None, "max_draft_tokens": None}), 0),
        "port": profile.port,
    }
    if (group := group_plan(profile)) is not None:
        parts["group"] = group.text()
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def one_token_request(profile: Profile) -> dict[str, Any]:
    """The body of the readiness check. It drafts nothing, so that acceptance counts users' requests only."""
    body: dict[str, Any] = {
        "model": profile.upstream_model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1,
    }
    return body | {"num_draft_tokens": 0} if profile.draft_model else body
