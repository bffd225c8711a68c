"""What a worker says -> typed records, or None. Pure.

There are two sources, and what comes from one is never taken for the other:

* The channel of our engine, to which nobody else can write: `parse_record`. It is the only source of figures for
  our workers. `Draft tokens accepted: 4/5 (80%)` in their log is for people; anybody could have it written there,
  by a request line or by what a model says.
* The log of a `command`, which has no channel: `parse_line`. Draft tokens are counted from the lines that the
  profile's pattern, if it has one, matches from end to end, up to as many as one request can have.

Neither is trusted. What is malformed, cut, or says something impossible (more accepted than proposed, negative or
absurd counts) is no record; nothing here ever raises.
"""

import json
import re
from collections.abc import Callable, Mapping
from itertools import zip_longest

from draftd import protocol
from draftd.protocol import (
    GRAMMAR_DRAFTER,
    LOOKUP_DRAFTER,
    MODEL_DRAFTER,
    PAPER_RULE,
    PLAIN_RULE,
    Costs,
)
from draftd.telemetry.figures import MAX_BYTES, MAX_COUNT, count, optional, positive
from draftd.telemetry.prompt_caches import cache_size, stored_prompt
from draftd.telemetry.rank_records import ranks_of
from draftd.telemetry.records import (
    DraftAcceptance,
    EngineProgress,
    EngineStarted,
    FromEngine,
    GenerationReport,
    Memory,
    ModelFacts,
    ModelsLoaded,
    PromptProgress,
)

# Draft tokens that one line of a `command` may report: no model's context is longer.
MAX_LINE_COUNT = 2**20
MAX_DIGITS = 12
MAX_ACCEPTANCE_LINE = (
    1000  # characters: what a pattern costs may grow faster than the line that it is tried on
)
MAX_POSITIONS = 1024
MAX_TEXT = 500  # characters
DRAFTERS = (GRAMMAR_DRAFTER, LOOKUP_DRAFTER, MODEL_DRAFTER)

_PROGRESS = re.compile(r"Prompt processing progress: ([0-9]{1,12})/([0-9]{1,12})")


def parse_line(line: str, acceptance: re.Pattern[str] | None) -> DraftAcceptance | PromptProgress | None:
    """The record in a line of a worker's log, or None. Never raises.

    `acceptance` matches whole lines that report draft tokens, and has the groups `accepted` and `proposed`; it may
    have `profile`.
    """
    if acceptance and len(line) <= MAX_ACCEPTANCE_LINE and (match := acceptance.fullmatch(line)):
        return _acceptance(match.groupdict())
    if match := _PROGRESS.search(line):
        processed, total = int(match[1]), int(match[2])
        return PromptProgress(processed, total) if processed <= total <= MAX_COUNT else None
    return None


def _acceptance(found: Mapping[str, str | None]) -> DraftAcceptance | None:
    accepted, proposed = (_digits(found[name]) for name in ("accepted", "proposed"))
    if accepted is None or proposed is None or not accepted <= proposed <= MAX_LINE_COUNT:
        return None
    return DraftAcceptance(accepted, proposed, found.get("profile"))


def _digits(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


def parse_record(text: bytes) -> FromEngine | None:
    """The record that the engine sent, or None. Never raises."""
    try:
        said = json.loads(text)
        parse = _PARSERS.get(said.get("event"))
        return parse(said) if parse else None
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None  # not JSON, an impossible number, or nested to exhaust the stack


def _loaded(said: Mapping[str, object]) -> ModelsLoaded:
    draft = said.get("draft")
    return ModelsLoaded(_facts(said.get("target")), None if draft is None else _facts(draft))


def _generation(said: Mapping[str, object]) -> GenerationReport:
    """Raises ValueError for anything missing or impossible."""
    report = GenerationReport(
        rounds=count(said.get("rounds")),
        proposed=count(said.get("proposed")),
        accepted=count(said.get("accepted")),
        truncated_rounds=optional(said.get("truncated_rounds")) or 0,
        draft_length=optional(said.get("draft_length")),
        accepted_by_position=_positions(said.get("accepted_by_position")),
        proposed_by_position=_positions(said.get("proposed_by_position")),
        tokens=optional(said.get("tokens")),
        passes=optional(said.get("passes")) or 0,
        rows=optional(said.get("rows")) or 0,
        memory=_memory(said.get("memory")),
        rule=rule if (rule := said.get("rule")) in {PAPER_RULE, PLAIN_RULE} else None,
        costs=_costs(said.get("costs")),
        speedup=None if said.get("speedup") is None else positive(said.get("speedup")),
        profile=name if isinstance(name := said.get("profile"), str) else None,
        drafters=_drafters(said.get("drafters")),
    )
    places = zip_longest(report.accepted_by_position, report.proposed_by_position, fillvalue=0)
    if report.accepted > report.proposed or any(kept > offered for kept, offered in places):
        raise ValueError("more accepted than proposed")
    if report.truncated_rounds > report.rounds:
        raise ValueError("more truncated rounds than rounds")
    return report


def _drafters(value: object) -> dict[str, DraftAcceptance]:
    """Raises ValueError for anything impossible; a drafter that is new to us is left out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("drafters is not an object")
    found = {name: counts for name, counts in value.items() if name in DRAFTERS and isinstance(counts, dict)}
    made = {
        name: DraftAcceptance(count(counts.get("accepted")), count(counts.get("proposed")))
        for name, counts in found.items()
    }
    if any(counts.accepted > counts.proposed for counts in made.values()):
        raise ValueError("more accepted than proposed")
    return made


def _started(said: Mapping[str, object]) -> EngineStarted:
    """Raises ValueError for anything missing or impossible."""
    accounting, version, hooks = said.get("accounting"), said.get("mlx_lm"), said.get("hooks")
    if not isinstance(accounting, bool):
        raise ValueError("accounting is neither true nor false")
    return EngineStarted(
        accounting=accounting,
        mlx_lm=version if isinstance(version, str) else "",
        hooks={name: state if isinstance(state, bool) else str(state) for name, state in hooks.items()}
        if isinstance(hooks, dict)
        else {},
    )


def _facts(value: object) -> ModelFacts:
    """Raises ValueError for anything missing or impossible."""
    if not isinstance(value, dict):
        raise ValueError("what is said of a model is not an object")
    cache, refusal = value.get("cache"), value.get("refusal")
    if not isinstance(cache, list) or not all(isinstance(kind, str) for kind in cache):
        raise ValueError("cache is not a list of names")
    batch = value.get("batch")
    for text in (refusal, batch):
        if text is not None and not isinstance(text, str):
            raise ValueError("a refusal is not a text")
    vocabulary, context = (optional(value.get(key)) for key in ("vocabulary", "context"))
    return ModelFacts(
        tuple(cache), refusal and refusal[:MAX_TEXT], batch and batch[:MAX_TEXT], vocabulary, context
    )


def _positions(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_POSITIONS:
        raise ValueError("not a list of counts")
    return tuple(count(item) for item in value)


def _memory(value: object) -> Memory | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("memory is not an object")
    active, cache, peak = (count(value.get(key) or 0, MAX_BYTES) for key in ("active", "cache", "peak"))
    return Memory(active, cache, peak)


def _costs(value: object) -> Costs | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("costs is not an object")
    return Costs(*(positive(value.get(key)) for key in ("single", "draft", "verify")))


_PARSERS: Mapping[str, Callable[[Mapping[str, object]], FromEngine]] = {
    protocol.GENERATION: _generation,
    protocol.STARTED: _started,
    protocol.LOADED: _loaded,
    protocol.PROGRESS: lambda said: EngineProgress(_memory(said.get("memory"))),
    protocol.PROMPT_CACHE: cache_size,
    protocol.STORED_PROMPT: stored_prompt,
    protocol.RANKS: ranks_of,
}
