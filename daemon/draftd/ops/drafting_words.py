"""What drafts for a profile, and how it is put into words. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER


def describe_drafting(drafters: Collection[str], draft_model: str | None, length: int, *, auto: bool) -> str:
    """As in 'drafted by lookup and org/small (up to 8 tokens)'. `length` is in tokens, the longest if `auto`."""
    ways = {
        LOOKUP_DRAFTER: "lookup",
        MODEL_DRAFTER: f"{draft_model} ({'up to ' if auto else ''}{length} tokens)",
    }
    found = [words for drafter, words in ways.items() if drafter in drafters]
    return f"drafted by {' and '.join(found)}" if found else "no drafting"


def drafters_of(row: Mapping[str, Any]) -> Collection[str]:
    """What drafts for a profile, by its row of /api/status; an older daemon knows one, and does not say."""
    drafters: Collection[str] | None = row.get("drafters")
    if drafters is None:
        return (MODEL_DRAFTER,) if row["num_draft_tokens"] else ()
    return drafters
