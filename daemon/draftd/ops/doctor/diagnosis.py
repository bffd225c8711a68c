"""The doctor: checks on collected facts, by topic. Pure."""

from __future__ import annotations

from draftd.ops.doctor import drafting as doctor_drafting
from draftd.ops.doctor import models as doctor_models
from draftd.ops.doctor import system as doctor_system
from draftd.ops.doctor.facts import Facts
from draftd.ops.doctor.findings import Finding

CHECKS = (*doctor_system.CHECKS, *doctor_models.CHECKS, *doctor_drafting.CHECKS)


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, those that are fine too."""
    return [finding for check in CHECKS for finding in check(facts)]
