"""The doctor: checks on collected facts, by topic. Pure."""

from __future__ import annotations

from draftd.ops import doctor_drafting, doctor_models, doctor_system
from draftd.ops.doctor_facts import Facts
from draftd.ops.doctor_findings import Finding

CHECKS = (*doctor_system.CHECKS, *doctor_models.CHECKS, *doctor_drafting.CHECKS)


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, those that are fine too."""
    return [finding for check in CHECKS for finding in check(facts)]
