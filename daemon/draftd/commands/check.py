"""`draftd check`: whether the profiles are valid, and what will draft for each. Needs no daemon."""

from __future__ import annotations

from collections.abc import Mapping

from draftd.commands.shared import ProfilesDir
from draftd.console import out
from draftd.hub import NEVER_DRAFTED, ModelOnDisk, read_model
from draftd.ops.drafting_words import describe_drafting
from draftd.profile_files import load_dir
from draftd.profiles import Profile
from draftd.protocol import MODEL_DRAFTER
from draftd.settings import load_settings


def check(profiles: ProfilesDir = None) -> None:
    """Check the profiles without starting anything.

    Example: draftd check --profiles ./profiles
    """
    settings = load_settings(profiles=profiles)
    found = load_dir(settings.profiles_dir(), settings.prompt_dirs())
    absent = False
    for profile in found.profiles.values():
        models = {name: read_model(name) for name in profile.models}
        absent |= not profile.command and not all(model.folder for model in models.values())
        line = f"{profile.name}: {profile.model}, {_drafting(profile, models)}"
        out.say(line)
    if absent:
        out.say(
            "models that are not on this machine yet are assumed to be ones that can be drafted: nearly all are"
        )
    out.say(f"{len(found.profiles)} profiles in {settings.profiles_dir()} are valid")


def _drafting(profile: Profile, models: Mapping[str, ModelOnDisk]) -> str:
    """What will draft for a profile, as far as the models' configs on this machine tell."""
    if profile.command:
        return "drafted by its own server, if at all"
    drafters = profile.all_drafters
    never = {name: NEVER_DRAFTED.get(model.config.model_type or "") for name, model in models.items()}
    if drafters and (why := never[profile.model]):
        return f"no drafting: {why}"
    why = never.get(profile.draft_model or "")
    if why:
        drafters = tuple(drafter for drafter in drafters if drafter != MODEL_DRAFTER)
    length = profile.draft_length
    words = describe_drafting(drafters, profile.draft_model, length, auto=profile.auto_draft)
    return f"{words}, not by {profile.draft_model}: {why}" if why else words
