"""A test of one server as a client sees it: does it answer, which models has it, does it generate.

Each step can be shown as soon as it is done; the first that fails raises DraftdError, which says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from draftd.errors import DraftdError
from draftd.ops.drafting_words import describe_drafting, drafters_of
from draftd.ops.generation import Generation, OpenAIServer, Show
from draftd.protocol import MODEL_DRAFTER

PROMPT = "What is speculative decoding?"
WARM_UP = "Say hello."


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to ask: `model` empty for the server's own choice; `max_tokens` bounds the answer. `drafters` names what
    may draft, None for the server's own choice.
    """

    model: str
    prompt: str
    max_tokens: int
    temperature: float
    drafters: Sequence[str] | None = None

    def body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        """A chat request."""
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": self.temperature,
        }
        body |= {"model": self.model} if self.model else {}
        return body | ({} if self.drafters is None else {"drafters": list(self.drafters)})


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """What the test found. `row` is the worker's row of /api/status, None for a server that is not draftd."""

    generation: Generation
    row: Mapping[str, Any] | None


def choose(word: str, models: Sequence[str] | None) -> str:
    """The model to ask: the one that `word` names, the only one there is, or the server's own choice ("").

    mlx_lm.server lists what it could load, and loads what it is asked for: to name one of several would make
    it drop the model that it serves.
    """
    if not word:
        return models[0] if models and len(models) == 1 else ""
    if models is None or word in models:
        return word
    candidates = [model for model in models if word in model]
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(candidates or models) or "none"
    raise DraftdError(
        f"'{word}' fits {'several models' if candidates else 'no model'} of the server; there are: {names}"
    )


def describe_model(models: Sequence[str] | None, name: str, row: Mapping[str, Any] | None) -> str:
    """The line about the model: what a draftd daemon says of its worker, or else what the list of models says."""
    if row is not None:
        drafting = describe_drafting(
            drafters_of(row), row["draft_model"], row["num_draft_tokens"], auto=row["auto_draft"]
        )
        return f"{name}: {row['model']}, {drafting}; worker {row['state']} on port {row['port'] or '–'}"
    if models is None:
        return f"{name or 'the server’s own choice'} (it lists no models)"
    listed = f"{len(models)} listed: {', '.join(models[:5])}{', …' if len(models) > 5 else ''}"
    return f"{name}" if [name] == list(models) else f"{name or 'the server’s own choice'} ({listed})"


def describe_acceptance(result: SmokeResult) -> str:
    """The line about drafting."""
    drafted = result.generation.drafted
    if drafted is not None and drafted.ratio is not None:
        return f"{drafted.ratio:.0%} ({drafted.accepted} of {drafted.proposed} draft tokens accepted)"
    return "unknown: the server does not say" if result.row is None else _why_nothing(result.row)


def _why_nothing(row: Mapping[str, Any]) -> str:
    if why := row.get("draft_refusal"):
        return f"none: {why}"
    if not (drafters := drafters_of(row)):
        return "none: nothing drafts for this profile"
    if MODEL_DRAFTER not in drafters:
        return "not measured: a lookup would find the answer of the last test"
    if row["auto_draft"]:
        return "none: by the times of its rounds, no draft was worth it"
    return "unknown: the worker reported no drafting ('draftd logs' may say why)"


def honest_drafters(row: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """What may draft in a test of a worker: its draft model. A lookup would have the answer of the last test.

    None leaves it to the server, where nothing drafts or nobody says what does.
    """
    if row is None or not row.get("drafters"):
        return None
    return tuple(drafter for drafter in row["drafters"] if drafter == MODEL_DRAFTER)


def warm_up(server: OpenAIServer, request: ChatRequest) -> None:
    """Generate one token, so that everything is loaded before anything is measured."""
    server.generate(request.body(WARM_UP, 1))


def run(server: OpenAIServer, request: ChatRequest, row: Mapping[str, Any] | None, show: Show) -> SmokeResult:
    """The generation that is measured; `show` gets each piece of its text."""
    body = request.body(request.prompt, request.max_tokens)
    return SmokeResult(server.generate(body, show), row)
