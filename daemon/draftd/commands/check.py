"""`draftd check`: whether the profiles are valid, and what will draft for each. Needs no daemon."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from draftd.commands.shared import ProfilesDir
from draftd.console import out
from draftd.errors import ConfigError
from draftd.hub import read_model
from draftd.ops.drafting_words import what_drafts
from draftd.ops.profile_checks import all_faults
from draftd.profile_files import accepted, read_dir
from draftd.profiles import Profile
from draftd.settings import load_settings


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a profile without starting it. `here`: whether its models are on this machine."""

    name: str
    model: str
    draft_model: str | None
    drafting: str
    here: bool | None
    ranks: int = 1


def check(
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
    profiles: ProfilesDir = None,
) -> None:
    """Check the profiles without starting anything.

    Example: draftd check --profiles ./profiles
    """
    settings = load_settings(profiles=profiles)
    folder = settings.profiles_dir()
    try:
        read = read_dir(folder, settings.prompt_dirs())
        problems = tuple(all_faults(settings, folder, read))
        loaded = accepted(folder, read, problems, may_be_empty=settings.may_have_peers)
    except ConfigError as error:
        if not as_json:
            raise
        out.data(json.dumps(_told(folder, [], error), indent=2))
        raise typer.Exit(2) from None
    found = [_checked(profile) for profile in loaded.profiles.values()]
    if as_json:
        out.data(json.dumps(_told(folder, found, None), indent=2))
        return
    for one in found:
        ranks = f", on {one.ranks} ranks" if one.ranks > 1 else ""
        out.say(f"{one.name}: {one.model}{ranks}, {one.drafting}")
    if any(one.here is False for one in found):
        out.say("models that are not on this machine yet are assumed to be able to draft: nearly all are")
    count = "1 profile is valid" if len(found) == 1 else f"{len(found)} profiles are valid"
    out.say(f"{count}: {folder}")


def _told(folder: Path, found: list[Checked], error: ConfigError | None) -> dict[str, Any]:
    problems = [
        {"file": str(one.file), "line": one.line, "reason": one.reason}
        for one in (error.problems if error else ())
    ]
    return {
        "folder": str(folder),
        "valid": error is None,
        "error": str(error.args[0]) if error else None,
        "problems": problems,
        "profiles": [asdict(one) for one in found],
    }


def _checked(profile: Profile) -> Checked:
    models = {name: read_model(name) for name in profile.models}
    here = None if profile.command else all(model.folder for model in models.values())
    ranks = profile.distributed.size if profile.distributed else 1
    drafting = what_drafts(profile, models)
    return Checked(profile.name, profile.model, profile.draft_model, drafting, here, ranks)
