"""What the daemon offers to other programs: its models, its address, and whether it asks for a key. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KEY_VARIABLE = "DRAFTD_API_KEY"  # where clients are told to take the key from


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A profile as a client sees it. `draft_length` is the longest draft of its draft model, in tokens, and 0
    without one; `context` is in tokens; `lookup` tells whether drafts are looked up.
    """

    name: str
    draft_length: int
    context: int
    auto_draft: bool = False
    lookup: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to ask for, and where. `default` names one of `models`; `base_url` ends with /v1. `to_trust` is
    a file with a certificate that clients trust only if they are told, "" if none is needed.
    """

    models: Sequence[OfferedModel]
    default: str
    base_url: str
    needs_key: bool = False
    to_trust: str = ""
