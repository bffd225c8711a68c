"""What the loop tells the policy, and what the policy answers. Pure."""

from dataclasses import dataclass

from draftd.protocol import LOOKUP_DRAFTER

ALONE = "alone"  # the source of rounds without a draft
REVIEW = "review"
MAX_LATE = 16  # unread tokens that a draft model reads within a round; more than that it reads before
MATCH_CLASSES = (3, 5, 9, 17)  # tokens of the shortest match of each class


@dataclass(frozen=True, slots=True)
class Choice:
    """A source of drafts and a length. ALONE is one token without a draft. REVIEW has the draft model read as
    many tokens that it has not read yet, so that the next choice can be made.
    """

    source: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice is made for: the depth of the context and the tokens that may still come; the match that a
    lookup found and what it could propose at most; the longest draft of the draft model, 0 without one, and the
    tokens that it has not read.
    """

    depth: int
    left: int
    match: int = 0
    lookup: int = 0
    model: int = 0
    unread: int = 0


def account_of(source: str, match: int) -> str:
    """Return under which name drafts of a source are judged: lookups by the length of their match."""
    if source != LOOKUP_DRAFTER:
        return source
    return source + str(max(bound for bound in MATCH_CLASSES if bound <= max(match, MATCH_CLASSES[0])))
