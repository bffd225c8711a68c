"""`draftd doctor`: looks at everything that can be wrong on this machine, and says what to do.

`collect` gathers the facts; the checks of `system`, `models`, `drafting` and `distributed` judge them, by topic.
"""

from __future__ import annotations

from collections.abc import Iterable

from draftd.ops.doctor import distributed, drafting, models, system
from draftd.ops.doctor.facts import Facts, Finding, Severity

CHECKS = (*system.CHECKS, *models.CHECKS, *drafting.CHECKS, *distributed.CHECKS)


def diagnose(facts: Facts) -> list[Finding]:
    """Every finding, including what was found to be fine."""
    return [finding for check in CHECKS for finding in check(facts)]


def exit_code(findings: Iterable[Finding]) -> int:
    """By the worst finding: 0 for fine and notes, 1 for a warning, 2 for an error."""
    worst = max((finding.severity for finding in findings), default=Severity.FINE)
    return max(0, worst - Severity.NOTE)
