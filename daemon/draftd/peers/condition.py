"""Whether a peer may be sent requests: the life of a peer as `step(state, event, now, jitter) -> state`. Pure.

Rules that every transition keeps:

1. A peer is sent nothing before it has answered once.
2. It is left out as soon as anything fails, a question or a request. Nothing waits for a second failure: there are
   other machines, and a question a moment later tells whether it was a mishap.
3. A peer that is left out is asked again after a delay that doubles with each failure, from 0.5 s to 10 s, and is
   back with its first answer.
4. Failures are forgotten once it has been well for a minute. A peer that comes and goes is asked less and less
   often, so most requests never meet it.
5. What will not pass by itself, a key that is refused or an address that is this daemon's own, is looked at again
   only after 30 s.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY, MAX_DELAY = 0.5, 10.0  # seconds
LASTING_DELAY = 30.0  # seconds
JITTER = 0.2  # the share by which a delay is lengthened at most
FORGIVEN_AFTER = 60.0  # seconds of being well


@dataclass(frozen=True, slots=True)
class New:
    """It has not answered yet."""

    label = "new"


@dataclass(frozen=True, slots=True)
class Well:
    """It answers, since `since`; `failures` are those that are not forgotten yet."""

    since: float
    failures: int = 0
    label = "well"


@dataclass(frozen=True, slots=True)
class Out:
    """It is left out, since `since`, because of `reason`, and asked again at `due`."""

    since: float
    reason: str
    failures: int
    due: float
    label = "out"


@dataclass(frozen=True, slots=True)
class Answered:
    """It has answered a question, or begun to answer a request."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not, for `reason`; `lasting` says that this will not pass by itself."""

    reason: str
    lasting: bool = False


Condition = New | Well | Out
Event = Answered | Failed


def step(state: Condition, event: Event, now: float, jitter: float) -> Condition:
    """The condition after an event. `now` is in monotonic seconds, `jitter` in [0, 1)."""
    if isinstance(event, Answered):
        if not isinstance(state, Well):
            return Well(now, state.failures if isinstance(state, Out) else 0)
        return Well(state.since) if now - state.since >= FORGIVEN_AFTER else state
    failures = _failures(state, now) + 1
    delay = LASTING_DELAY if event.lasting else min(FIRST_DELAY * 2.0 ** min(failures - 1, 30), MAX_DELAY)
    since = state.since if isinstance(state, Out) else now
    return Out(since, event.reason, failures, now + delay * (1 + JITTER * jitter))


def _failures(state: Condition, now: float) -> int:
    if isinstance(state, New):
        return 0
    if isinstance(state, Well) and now - state.since >= FORGIVEN_AFTER:
        return 0
    return state.failures
