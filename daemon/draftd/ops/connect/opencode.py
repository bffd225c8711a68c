"""The part of OpenCode's config that makes it use draftd: written, compared with the user's file, merged into it.

What OpenCode does with each key was measured with its version 1.18: `limit.output` becomes `max_tokens` of every
request, and the model's name is sent without the provider's in front.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from draftd.errors import ConfigError, Problem
from draftd.files import read_bytes
from draftd.ops.connect.jsonc import JsoncError, merge
from draftd.ops.connect.offer import KEY_VARIABLE, Offer, OfferedModel

PROVIDER = "speculative"
MAX_OUTPUT = 8192  # tokens; OpenCode takes them off the context that it may fill


def opencode_config(offer: Offer) -> dict[str, Any]:
    """The part of OpenCode's config that it needs to talk to the daemon.

    The model for titles is the one with the shortest drafts. A key is named, never written out.
    """
    small = min(offer.models, key=lambda model: (model.draft_length or 99, model.name))
    return {
        "$schema": "https://opencode.ai/config.json",
        "model": f"{PROVIDER}/{offer.default}",
        "small_model": f"{PROVIDER}/{small.name}",
        "provider": {
            PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "draftd",
                "options": {
                    "baseURL": offer.base_url,
                    "apiKey": f"{{env:{KEY_VARIABLE}}}" if offer.needs_key else "local",
                },
                "models": {model.name: _entry(model) for model in offer.models},
            }
        },
    }


def _entry(model: OfferedModel) -> dict[str, Any]:
    at_most = "up to " if model.auto_draft else ""
    alone = "drafts by lookup" if model.lookup else "no drafting"
    drafts = f"{at_most}{model.draft_length} draft tokens" if model.draft_length else alone
    return {
        "name": f"{model.name} ({drafts})",
        "tool_call": True,
        "temperature": True,
        "limit": {"context": model.context, "output": min(MAX_OUTPUT, model.context // 4)},
    }


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's file that OpenCode reads last: OPENCODE_CONFIG, else opencode.jsonc, else opencode.json."""
    if named := environ.get("OPENCODE_CONFIG"):
        return Path(named).expanduser()
    home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    folder = Path(home) / "opencode"
    with_comments = folder / "opencode.jsonc"
    return with_comments if with_comments.is_file() else folder / "opencode.json"


@dataclass(frozen=True, slots=True)
class Change:
    """The user's file as it is, and as it would be."""

    file: Path
    before: str
    after: str

    def diff(self) -> list[str]:
        """A unified diff, without line ends; empty if nothing changes."""
        names = (str(self.file), f"{self.file} (new)")
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), *names, lineterm="")
        return list(lines)


def change(file: Path, config: Mapping[str, Any]) -> Change:
    """`config` merged into the text of `file`, which may be missing. Raises ConfigError with file and line."""
    try:
        before = read_bytes(file).decode("utf-8") if file.exists() else ""
        mark = "\ufeff" if before.startswith("\ufeff") else ""  # which is not JSON
        return Change(file, before, mark + merge(before.removeprefix(mark), config))
    except JsoncError as error:
        raise _refused(file, error.line, str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(file, None, str(error)) from error


def _refused(file: Path, line: int | None, reason: str) -> ConfigError:
    return ConfigError("OpenCode's config cannot be changed", (Problem(file, line, reason),))


def write(change: Change, now: datetime) -> Path | None:
    """Write the change, whole or not at all; returns the backup of the old file, None if there was no file.

    A symbolic link stays one: the file that it points to is written. Raises ConfigError.
    """
    file = change.file.resolve()
    made = file.with_name(f"{file.name}.draftd-new")
    backup = file.with_name(f"{file.name}.{now:%Y%m%d-%H%M%S}.bak") if file.exists() else None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if backup:
            shutil.copy2(file, backup)
            shutil.copy2(file, made)  # for its mode
        made.write_bytes(change.after.encode())
        made.replace(file)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise _refused(change.file, None, str(error)) from error
    return backup
