"""Checks what drafting is worth: acceptance in the running daemon, and the last bench. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from draftd.ops.doctor.facts import Check, Facts, Finding, Severity
from draftd.ops.drafting_words import drafters_of
from draftd.profiles import MIN_PAYING_ACCEPTANCE, Profile
from draftd.protocol import MODEL_DRAFTER

UNDRAFTED = "requests are served without drafts, and a draft model only takes memory"
MIN_PROPOSED = 200  # proposed tokens, below which an acceptance rate says little
FASTER, SLOWER = 1.05, 0.95  # measured speedups beyond these, in three of four comparisons, are clear


def without_drafts(users: str) -> str:
    """What to do about a model that cannot draft, in the profiles `users`."""
    return f"remove draft_model and drafters from {users}, or choose another model"


def refused(facts: Facts) -> Iterator[Finding]:
    """The running engines have models that they can draft with."""
    rows = (facts.daemon.rows or ()) if facts.daemon else ()
    for row in rows:
        if drafters_of(row) and (refusal := row.get("draft_refusal")):  # an older daemon does not say
            what = f"{row['name']} cannot draft: {refusal}"
            yield Finding(Severity.ERROR, "drafting", what, UNDRAFTED, without_drafts(row["name"]))


def acceptance(facts: Facts) -> Iterator[Finding]:
    """Enough of what the draft models propose is accepted."""
    rows = (facts.daemon.rows or ()) if facts.daemon else ()
    for row in rows:
        proposed, accepted = _by_model(row)
        if not row["num_draft_tokens"] or row["auto_draft"] or proposed < MIN_PROPOSED:
            continue
        what = f"{row['name']}: {accepted / proposed:.0%} of the draft model's tokens are accepted"
        if accepted / proposed >= MIN_PAYING_ACCEPTANCE:
            yield Finding(Severity.FINE, "drafting", what)
        else:
            why = "below 60 % drafting rarely pays, and longer drafts lose more"
            yield Finding(Severity.WARNING, "drafting", what, why, _shorter(row, rows))


def _by_model(row: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens that the draft model proposed, and how many were accepted; lookups have a length of their own.

    An older daemon knows one drafter only, and other servers do not say which they have.
    """
    by_drafter = (row.get("speculation") or {}).get("by_drafter")
    figures = by_drafter.get(MODEL_DRAFTER, {}) if by_drafter else row["acceptance"]
    return figures.get("proposed", 0), figures.get("accepted", 0)


def _shorter(row: Mapping[str, Any], rows: tuple[Mapping[str, Any], ...]) -> str:
    """Which preset to try: the next shorter draft of the same models."""
    key = (row["model"], row["draft_model"])
    length = row["num_draft_tokens"]
    same = [r for r in rows if (r["model"], r["draft_model"]) == key and 0 < r["num_draft_tokens"] < length]
    if not same:
        return (
            "try no draft_model, a better one, or a lower temperature; 'draftd bench' measures what is best"
        )
    best = max(same, key=lambda other: int(other["num_draft_tokens"]))
    return (
        f"try {best['name']} ({best['num_draft_tokens']} draft tokens); 'draftd bench' measures what is best"
    )


def measured(facts: Facts) -> Iterator[Finding]:
    """The last bench of a profile's models found its draft length worth it."""
    drafting = [profile for profile in facts.profiles if profile.draft_model]
    judged = [finding for profile in drafting if (finding := _judged(profile, facts.bench)) is not None]
    yield from judged
    if drafting and not judged:
        why = (
            "whether drafting pays depends on models, machine and prompts; nobody can tell without measuring"
        )
        yield Finding(Severity.NOTE, "drafting", "the speedup was never measured here", why, "draftd bench")


def _judged(profile: Profile, bench: Mapping[str, Any] | None) -> Finding | None:
    """None if the bench measured other models, or no such draft length."""
    if bench is None or (bench["model"], bench["draft_model"]) != (profile.model, profile.draft_model):
        return None
    own = next((s for s in bench["overall"] if s["variant"].split(" ")[0] == _variant(profile)), None)
    if own is None:
        return None
    best = bench["overall"][0]
    what = f"{profile.name}: {own['speed_up']:.2f}x the speed of no drafting (bench of {bench['at'][:10]})"
    if own["speed_up"] > FASTER and own["low"] > 1:
        return Finding(Severity.FINE, "drafting", what)
    if own["speed_up"] > SLOWER or own["high"] > 1:
        why = f"no clear gain: single comparisons lie between {own['low']:.2f} and {own['high']:.2f}"
        do = "draftd bench --runs 9 on a quiet machine; without a gain, drafting only takes memory"
        return Finding(Severity.NOTE, "drafting", what, why, do)
    why = "drafting makes it slower than the target model alone"
    if best["low"] > 1:
        do = f"try {best['variant']} draft tokens: {best['speed_up']:.2f}x"
    else:
        do = "remove draft_model from the profile: no draft length was clearly faster than none"
    return Finding(Severity.WARNING, "drafting", what, why, do)


def _variant(profile: Profile) -> str:
    """How the bench's label of its draft length begins: '5 (balanced)', 'auto'."""
    return "auto" if profile.auto_draft else str(profile.draft_length)


CHECKS: tuple[Check, ...] = (refused, acceptance, measured)
