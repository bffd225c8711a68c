"""What an answer cost, in the words of llama.cpp's server, which its clients show. Pure.

`prompt_n` are the tokens of the prompt that were read, without the `cache_n` that the prompt cache had. The first
token's time is part of the prompt's, as there. The times are those that the client waited: where several requests
take turns, the turns of the others are in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

COUNT_ATTRIBUTE = (
    "draftd_count"  # of mlx_lm's GenerationContext: the draft tokens of the answer, as far as it is
)


class DraftCount(Protocol):
    """Draft tokens that were proposed and accepted."""

    @property
    def proposed(self) -> int: ...

    @property
    def accepted(self) -> int: ...


@dataclass(slots=True)
class Timings:
    """Times are seconds on one clock; `first` is None as long as there is no token."""

    began: float
    first: float | None = None
    one_round: bool = False  # all tokens came at once: the time between them says nothing of a speed

    def told(
        self, prompt: int, cached: int, predicted: int, now: float, drafts: DraftCount | None
    ) -> dict[str, Any]:
        """Return `timings`. `prompt` and `predicted` are numbers of tokens; `cached` is negative if it is unknown,
        `drafts` None where nothing could be drafted.
        """
        first = now if self.first is None else self.first
        cached = max(0, cached)
        told: dict[str, Any] = {"cache_n": cached}
        told |= _rate("prompt", prompt - cached, first - self.began) | _rate(
            "predicted", predicted, now - first
        )
        if self.one_round:
            told["predicted_per_second"] = 0.0
        if drafts is not None and drafts.proposed:
            told |= {"draft_n": drafts.proposed, "draft_n_accepted": drafts.accepted}
        return told


def _rate(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    """Zero stands for what cannot be said of no tokens, or of no time."""
    milliseconds = seconds * 1000
    return {
        f"{name}_n": tokens,
        f"{name}_ms": round(milliseconds, 3),
        f"{name}_per_token_ms": round(milliseconds / tokens, 3) if tokens else 0.0,
        f"{name}_per_second": round(tokens / seconds, 3) if seconds > 0 else 0.0,
    }
