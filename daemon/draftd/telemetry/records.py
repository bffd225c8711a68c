"""What workers tell of themselves, as typed records. Pure. record_parser.py makes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from draftd.protocol import CacheSize, Costs
from draftd.telemetry.prompt_caches import StoredPrompt
from draftd.telemetry.rank_records import Ranks


@dataclass(frozen=True, slots=True)
class DraftAcceptance:
    """Draft tokens of one request: how many were proposed, how many of them accepted, and for which profile."""

    accepted: int
    proposed: int
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Prompt tokens processed so far, of how many."""

    processed: int
    total: int


@dataclass(frozen=True, slots=True)
class Memory:
    """mlx's memory in the child, in bytes: in use, kept for reuse, highest so far."""

    active: int
    cache: int
    peak: int


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """The engine's account of one request.

    `drafters` has `proposed` and `accepted` for each drafter, by its name. The tuples `_by_position` count draft
    tokens by their place in the round, first place first. `rule` is "paper" or "plain"; `speedup` is an estimate,
    compared to no drafting; `profile` is whose request it was, where several share the engine. The request took
    part in `passes` of the target model, which had `rows` in all: its own and those of other requests. What the
    engine did not say is None or 0.
    """

    rounds: int
    proposed: int
    accepted: int
    truncated_rounds: int = 0
    draft_length: int | None = None
    accepted_by_position: tuple[int, ...] = ()
    proposed_by_position: tuple[int, ...] = ()
    tokens: int | None = None
    memory: Memory | None = None
    rule: str | None = None
    costs: Costs | None = None
    speedup: float | None = None
    profile: str | None = None
    drafters: Mapping[str, DraftAcceptance] = field(default_factory=dict, hash=False)
    passes: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """The engine's first word. `accounting` is False if a hook could not be placed: no draft counts come then.

    `hooks` says for each hook whether it is in place, or why not in the engine's words. `mlx_lm` is a
    version, "" if unknown.
    """

    accounting: bool
    mlx_lm: str = ""
    hooks: Mapping[str, bool | str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine says about one loaded model.

    `cache` names the kinds of its caches, by mlx_lm's classes, each once. `refusal` says why nothing may be drafted
    with it, and `batch` why requests that are drafted do not share its passes; None if they may. `vocabulary` and
    `context` are in tokens, None if the model does not say.
    """

    cache: tuple[str, ...]
    refusal: str | None = None
    batch: str | None = None
    vocabulary: int | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class ModelsLoaded:
    """The engine has loaded its models; `draft` is None if there is no draft model. Comes after `EngineStarted`."""

    target: ModelFacts
    draft: ModelFacts | None = None

    @property
    def refusal(self) -> str | None:
        """Why nothing may be drafted with these models; None if it may."""
        return self.target.refusal or (self.draft.refusal if self.draft else None)


@dataclass(frozen=True, slots=True)
class EngineProgress:
    """The engine makes progress: it read a piece of a prompt, or did a round. Comes at most once a second."""

    memory: Memory | None = None


FromEngine = (
    GenerationReport | EngineStarted | ModelsLoaded | EngineProgress | CacheSize | StoredPrompt | Ranks
)
Record = FromEngine | DraftAcceptance | PromptProgress
