"""What a peer says about itself: a draftd at `/api/load`, any other server at `/v1/models`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from draftd.telemetry.lines import escape

MAX_MODELS = 256  # of one peer: each becomes labels of metrics
SERVING = frozenset({"ready", "asleep", "waiting", "starting"})  # states in which a worker takes requests
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
MAX_WORDS = 200  # characters of what a peer says about its refusal
_STATE = re.compile(r"[a-z]{1,20}")
_MAX_COUNT = 1_000_000
OTHERS_SLOTS = 4  # requests that other servers are assumed to work on at once: none of them says


class WrongReportError(ValueError):
    """It is not what such a server says; the text says how."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a peer. `open` are requests that it works on or that wait; `takes` is how many seconds one takes,
    `start` how many its last start took, None if there was none.
    """

    name: str
    aliases: tuple[str, ...] = ()
    context: int | None = None
    state: str = "ready"
    slots: int = 1
    open: int = 0
    takes: float | None = None
    start: float | None = None

    @property
    def serves(self) -> bool:
        """Whether it takes requests."""
        return self.state in SERVING

    @property
    def is_up(self) -> bool:
        """Whether its models are loaded."""
        return self.state == "ready"


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/load`. `id` identifies one start of a daemon, `keepalive` is the longest silence of its
    streams in seconds.
    """

    id: str
    version: str
    keepalive: float
    models: tuple[LoadedModel, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a peer from its answer. `own`: it is a draftd; only then are the last two set."""

    own: bool
    models: dict[str, LoadedModel]
    id: str = ""
    keepalive: float = 0.0


def of_draftd(body: bytes) -> Known:
    """What a draftd says. Raises WrongReportError."""
    try:
        report = msgspec.json.decode(body, type=LoadReport)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WrongReportError(f"its {'/api/load'} cannot be read: {error}") from error
    return Known(True, _named(report.models), report.id, max(1.0, min(report.keepalive, 3600.0)))


def of_others(body: bytes) -> Known:
    """What any other server that speaks OpenAI's protocol says. Raises WrongReportError."""
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WrongReportError("its /v1/models is not JSON") from error
    listed = told.get("data") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise WrongReportError("its /v1/models is not a list of models")
    names = [one.get("id") for one in listed if isinstance(one, dict)]
    models = (LoadedModel(name=name, slots=OTHERS_SLOTS) for name in names if isinstance(name, str))
    return Known(False, _named(tuple(models)))


def refusal_of(status: int, body: bytes) -> str:
    """Why a peer does not let us in, in its own words if they have OpenAI's form."""
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        told = None
    error = told.get("error") if isinstance(told, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    what = "does not take our api_key" if status == 401 else "refuses requests from here"
    return f"{what} (status {status})" + (f": {escape(words[:MAX_WORDS])}" if isinstance(words, str) else "")


def _named(models: tuple[LoadedModel, ...]) -> dict[str, LoadedModel]:
    """Those whose names can stand in a header, a label and a line, with figures that are possible."""
    sound = (one for one in models if _NAME.fullmatch(one.name) and ".." not in one.name)
    return {one.name: _bounded(one) for one in list(sound)[:MAX_MODELS]}


def _bounded(one: LoadedModel) -> LoadedModel:
    return msgspec.structs.replace(
        one,
        aliases=tuple(alias for alias in one.aliases[:100] if _NAME.fullmatch(alias)),
        state=one.state if _STATE.fullmatch(one.state) else "unknown",
        context=one.context if one.context and 0 < one.context < 2**40 else None,
        slots=min(max(1, one.slots), _MAX_COUNT),
        open=min(max(0, one.open), _MAX_COUNT),
        takes=_seconds(one.takes),
        start=_seconds(one.start),
    )


def _seconds(value: float | None) -> float | None:
    return value if value is not None and 0 < value < 86_400 else None
