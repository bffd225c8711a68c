"""Why a worker is not ready, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from draftd.workers.events import PRESSURE, ROOM
from draftd.workers.states import Backoff, Draining, Failed, Queued, Starting, State, Stopped, Stopping, Then
from draftd.workers.status import LastExit

CHECK = "POST /v1/chat/completions"  # what the readiness check asks for
MIN_WEIGHTS = 10**9  # bytes; with less, the memory of Python and its libraries would count too much
_THEN = {Then.STOP: "ends", Then.START: "is started again", Then.FAIL: "is replaced"}
_WORDS = {ROOM: "others need its place in memory", PRESSURE: "the machine is short of memory"}
_BY_ORDER = {"operator", "removed", "config"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How far a load is: the answer to the readiness check, and how many of the weights' bytes are in memory.

    `status` is None as long as there was no answer; `answer` then says so in words.
    """

    status: int | None = None
    answer: str = ""
    memory: int | None = None
    weights: int | None = None


def why(
    name: str,
    state: State,
    *,
    ahead: Sequence[str],
    in_memory: Sequence[str] | None,
    strained: str = "",
    load: Load,
    open_requests: int,
    last: LastExit | None,
) -> str:
    """Why the worker is in this state; "" for one that is ready. `ahead` names who comes before it, `in_memory` who
    has the memory that it waits for, None if it waits for none. `strained` says how short the machine is of memory,
    "" if it is not.
    """
    match state:
        case Queued() if in_memory is not None and strained:
            return f"until the machine is less short of memory: {strained}"
        case Queued() if in_memory is not None:
            which = f", taken by {_few(in_memory)}" if in_memory else ""
            return f"for room in memory{which}{f', after {_few(ahead)}' if ahead else ''}"
        case Queued():
            return f"for its turn to load{f', after {_few(ahead)}' if ahead else ''}"
        case Starting():
            return _loading(state, load)
        case Draining():
            rest = "1 request" if open_requests == 1 else f"{open_requests} requests"
            return f"{rest} may finish, then it {_THEN[state.then]}{_because(state.reason)}"
        case _:
            return _without_child(name, state, last)


def _without_child(name: str, state: State, last: LastExit | None) -> str:
    match state:
        case Stopped() if state.refusal:
            return f"it does not fit in memory: {state.refusal}"
        case Stopped():
            by_order = f"by order; 'draftd start {name}' starts it"
            return "starts with a request" if state.on_demand else by_order
        case Stopping():
            return f"it was told to end, and then {_after(state.then)}{_because(state.reason)}"
        case Backoff():
            return f"{last or state.reason}"
        case Failed():
            given_up = f"given up after {len(state.failures)} failures; 'draftd restart {name}' tries again"
            return f"{last or state.reason}; {given_up}"
        case _:
            return ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _after(then: Then) -> str:
    return "stays stopped" if then is Then.STOP else _THEN[then]


def _because(reason: str) -> str:
    return "" if reason in _BY_ORDER else f" ({_WORDS.get(reason, reason)})"


def _loading(state: Starting, load: Load) -> str:
    how = "no progress" if state.stuck else "loading"
    if load.status is not None:
        return f"{how}: it answered {load.status} to {CHECK}"
    parts = [how]
    if load.memory and load.weights and load.weights > MIN_WEIGHTS:
        parts.append(f"{min(load.memory, load.weights) / 1e9:.1f} of {load.weights / 1e9:.1f} GB in memory")
    return ", ".join([*parts, load.answer] if load.answer else parts)
