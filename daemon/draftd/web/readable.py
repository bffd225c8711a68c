"""The profiles in force and the prompts on disk, for reading, and what is wrong with either."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from draftd.errors import ConfigError
from draftd.profiles import Profile
from draftd.prompt_files import find_prompts
from draftd.web.aiohttp_app import json_response
from draftd.web.router import Router

# A flag of a command whose value is secret, such as `--api-key`.
_SECRET = re.compile(r"key|token|secret|passw", re.IGNORECASE)
# A secret within a word: of a shell's line, a header, an address.
_INSIDE = re.compile(
    r"([\w-]*(?:key|token|secret|passw)[\w-]*\s*[=:\s]\s*|authorization:\s*\w+\s+|://[^/\s:@]*:)[^\s@'\"]+",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9.]+")  # as behind --max-tokens
HIDDEN = "…"


@dataclass(frozen=True, slots=True)
class Readable:
    """The handler. `problem` says why the files on disk are not in force, None if they are."""

    router: Router
    prompt_dirs: Sequence[Path]
    problem: Callable[[], str | None]

    def routes(self) -> list[web.RouteDef]:
        """Path and handler."""
        return [web.get("/api/profiles", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/profiles: the profiles in force, the prompts, and what is wrong with the files."""
        profiles = list(self.router.table.profiles.profiles.values())
        prompts, problem = await asyncio.to_thread(_prompts, self.prompt_dirs, profiles)
        problems = [text for text in (self.problem(), problem) if text]
        return json_response(
            {"problems": problems, "profiles": [told(profile) for profile in profiles], "prompts": prompts}
        )


def told(profile: Profile) -> dict[str, Any]:
    """What was set in a profile, without the secrets in its `command`."""
    settings = profile.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    if profile.command:
        settings["command"] = list(_without_secrets(profile.command))
    return {"name": profile.name, "settings": settings}


def _without_secrets(command: Iterable[str]) -> Iterable[str]:
    hides = False  # the next word is one
    for word in command:
        flag, equals, _ = word.partition("=")
        is_secret = bool(_SECRET.search(flag)) and (word.startswith("-") or bool(equals))
        if hides and not _NUMBER.fullmatch(word):
            yield HIDDEN
        elif is_secret and equals:
            yield f"{flag}={HIDDEN}"
        else:
            yield _INSIDE.sub(rf"\1{HIDDEN}", word)
        hides = is_secret and not equals


def _prompts(dirs: Sequence[Path], profiles: list[Profile]) -> tuple[list[dict[str, Any]], str | None]:
    """Every prompt, or why one cannot be read."""
    try:
        found = find_prompts(dirs, profiles)
    except ConfigError as error:
        return [], str(error)
    return [
        {"name": one.name, "file": str(one.file), "text": one.text, "used_by": list(one.used_by)}
        for one in found
    ], None
