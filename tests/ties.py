"""When two greedy texts count as the same: everywhere, or up to a place where two tokens are equally likely.

A pass over several tokens rounds differently from a pass over one. Where the difference between two tokens is
within what the rounding makes, either may come out as the likeliest. This is one rule for all tests: that of the
architectures knows the logits (`tests.engine.architectures.proof`), those of whole answers take log-probabilities,
whose differences are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


def is_tie(gap: float, noise: float) -> bool:
    """Whether two tokens that are `gap` apart may change places, where rounding alone moves a token by `noise`."""
    return gap <= 2 * noise


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, its log-probability, and those of the likeliest tokens in its place."""

    text: str
    logprob: float
    likeliest: Mapping[str, float]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """One of `choices[0].logprobs.content` of a chat completion."""
        likeliest = {other["token"]: other["logprob"] for other in item["top_logprobs"]}
        return cls(item["token"], item["logprob"], likeliest)


def noise_of(plain: Sequence[Token], drafted: Sequence[Token]) -> float:
    """What drafting changed of the log-probabilities of two texts as long as they are the same.

    Where they part nothing is measured: there a wrong text would excuse itself.
    """
    noise = 0.0
    for one, other in zip(plain, drafted, strict=False):
        if one.text != other.text:
            break
        shared = one.likeliest.keys() & other.likeliest.keys()
        noise = max([noise, *(abs(one.likeliest[text] - other.likeliest[text]) for text in shared)])
    return noise


def verdict(plain: Sequence[Token], drafted: Sequence[Token], noise: float) -> str:
    """'the same', 'a tie at' a place, or 'NO at' a place: two texts of one length, and where they first differ."""
    if len(plain) != len(drafted):
        return f"NO at the end: {len(plain)} and {len(drafted)} tokens"
    for place, (one, other) in enumerate(zip(plain, drafted, strict=True)):
        if one.text != other.text:
            gap = min(_gap(one, other.text), _gap(other, one.text))
            return f"{'a tie' if is_tie(gap, noise) else 'NO'} at {place} (gap {gap:.1e}, noise {noise:.1e})"
    return "the same"


def _gap(token: Token, other: str) -> float:
    """How much less likely another token was in its place; infinite if it was not among the likeliest."""
    return abs(token.logprob - token.likeliest[other]) if other in token.likeliest else float("inf")
