"""What drafts for a profile, and how it is put into words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from draftd.hub import NEVER_DRAFTED, ModelOnDisk
from draftd.profiles import Profile
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER


def describe_drafting(drafters: Collection[str], draft_model: str | None, length: int, *, auto: bool) -> str:
    """As in 'drafted by lookup and org/small (up to 8 tokens)'. `length` is in tokens, the longest if `auto`."""
    ways = {
        LOOKUP_DRAFTER: "lookup",
        MODEL_DRAFTER: f"{draft_model} ({'up to ' if auto else ''}{length} tokens)",
    }
    found = [words for drafter, words in ways.items() if drafter in drafters]
    return f"drafted by {' and '.join(found)}" if found else "no drafting"


def what_drafts(profile: Profile, models: Mapping[str, ModelOnDisk]) -> str:
    """The same for a profile that is not loaded, as far as the configs of its models on this machine tell."""
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


def drafters_of(row: Mapping[str, Any]) -> Collection[str]:
    """What drafts for a profile, by its row of /api/status; an older daemon knows one, and does not say."""
    drafters: Collection[str] | None = row.get("drafters")
    if drafters is None:
        return (MODEL_DRAFTER,) if row["num_draft_tokens"] else ()
    return drafters
