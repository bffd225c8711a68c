"""A finding of the doctor: what it is, why it matters and what to do. Pure.

Exit code by the worst of them: 0 for fine and notes, 1 for a warning, 2 for an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from draftd.ops.doctor.facts import Facts


class Severity(IntEnum):
    """FINE says what was looked at and found well; a NOTE needs nothing done; what is an ERROR cannot work."""

    FINE = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """`topic` groups findings; `why` and `do` are empty where all is well."""

    severity: Severity
    topic: str
    what: str
    why: str = ""
    do: str = ""


Check = Callable[[Facts], Iterable[Finding]]


def exit_code(findings: Iterable[Finding]) -> int:
    """0, 1 or 2 by the worst finding."""
    worst = max((finding.severity for finding in findings), default=Severity.FINE)
    return max(0, worst - Severity.NOTE)
