"""When two greedy texts count as the same: everywhere, or up to a place where two tokens are equally likely.

A pass over several tokens rounds differently from a pass over one. Where the difference between two tokens is
within the rounding error, either may come out as the likeliest. This is one rule for all tests: that of the
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


def tokens_of_completion(logprobs: Mapping[str, Any]) -> list[Token]:
    """The tokens of a completion, of which `choices[0].logprobs` has another form."""
    columns = (logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs"))
    return [Token(text, logprob, likeliest) for text, logprob, likeliest in zip(*columns, strict=True)]


def noise_of(plain: Sequence[Token], drafted: Sequence[Token]) -> float:
    """How much drafting changed the log-probabilities of two texts, as far as the texts are the same.

    Beyond the point where they part, nothing is measured: there a wrong text would excuse itself.
    """
    noise = 0.0
    for one, other in zip(plain, drafted, strict=False):
        if one.text != other.text:
            break
        shared = one.likeliest.keys() & other.likeliest.keys()
        noise = max([noise, *(abs(one.likeliest[text] - other.likeliest[text]) for text in shared)])
    return noise


def verdict(plain: Sequence[Token], drafted: Sequence[Token], noise: float) -> str:
    """'the same', 'a tie at' a place, or 'NO at' a place: two greedy texts, and where they part."""
    for place, (one, other) in enumerate(zip(plain, drafted, strict=False)):
        if one.text != other.text:
            gap = min(_gap(one, other.text), _gap(other, one.text))
            return f"{'a tie' if is_tie(gap, noise) else 'NO'} at {place} (gap {gap:.1e}, noise {noise:.1e})"
    if len(plain) != len(drafted):
        return f"NO at the end: {len(plain)} and {len(drafted)} tokens"
    return "the same"


def may_differ(plain: Sequence[Token], drafted: Sequence[Token]) -> str:
    """ "" if two greedy texts may differ, as they part at a tie; else what is wrong."""
    found = verdict(plain, drafted, noise_of(plain, drafted))
    return found if found.startswith("NO") else ""


def _gap(token: Token, other: str) -> float:
    """How much less likely another token was in its place; infinite if it was not among the likeliest."""
    return abs(token.logprob - token.likeliest[other]) if other in token.likeliest else float("inf")
