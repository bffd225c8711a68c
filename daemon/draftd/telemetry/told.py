"""What happens, in words for people: events of the daemon's log, and requests that have ended. Pure."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from draftd.telemetry.lines import escape
from draftd.telemetry.request_record import RequestRecord

Tone = Literal["good", "plain", "low", "bad"]
QUIET = {"event", "level", "logger", "timestamp", "exception", "stack", "exc_info", "stack_info"}
STATE = "worker "  # what the event of a worker's new state begins with
CLIENT_LEFT = 499
MAX_COLUMN = 24  # characters that the names of workers may take in front of lines
MAX_NAMES = 8  # of profiles in one sentence
MAX_SHOWN = 160  # characters of an error in the line of a request


class Told(msgspec.Struct, frozen=True):
    """One event in a line, some in more. `time` is in epoch seconds, `who` a worker or "" for the daemon."""

    time: float
    who: str
    text: str
    tone: Tone = "plain"

    @property
    def line(self) -> str:
        """The same without the time."""
        return f"{self.who}{': ' if self.who else ''}{self.text}"

    def __str__(self) -> str:
        return f"{clock(self.time)} {self.line}"


def clock(epoch: float) -> str:
    """The local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(epoch))


def of_event(event: Mapping[str, Any], now: float) -> Told:
    """An event of the daemon's log."""
    what = str(event["event"])
    who = str(event.get("worker", ""))
    level = event.get("level", "info")
    tone: Tone = "bad" if level in {"error", "critical"} else "low" if level == "warning" else "plain"
    trace = f"\n{event['exception']}" if event.get("exception") else ""
    if what.startswith(STATE) and who and "state" in event:
        return Told(now, who, _state(event) + trace, "good" if event["state"] == "ready" else tone)
    made = _SENTENCES.get(what)
    return Told(now, who, (made(event) if made else _pairs(what, event)) + trace, tone)


def _state(event: Mapping[str, Any]) -> str:
    reason = event.get("reason")
    return f"{event['state']}{': ' if reason else ''}{reason or ''}"


def _pairs(what: str, event: Mapping[str, Any]) -> str:
    pairs = [f"{key}={value}" for key, value in event.items() if key not in QUIET | {"worker"}]
    return f"{what}{': ' if pairs else ''}{', '.join(pairs)}"


def _applied(event: Mapping[str, Any]) -> str:
    changed = event["changed"]
    return f"profiles read; new or changed: {named(changed)}" if changed else "profiles read; nothing changed"


def _refused(event: Mapping[str, Any]) -> str:
    # Each fault in a line of its own: within a value a line break would be escaped.
    reason, *faults = (escape(line) for line in event["reason"])
    return "\n".join([f"reload refused; the old profiles stay in force: {reason}", *faults])


def _stops(event: Mapping[str, Any]) -> str:
    count = event["open_requests"]
    why = f" ({event['because']})" if event.get("because") else ""
    if not count:
        return f"stopping{why}"
    whose = "1 request" if count == 1 else f"{count} requests"
    limit = f"{event['drain_timeout']:g}"
    them = "it" if count == 1 else "them"
    return f"stopping{why}: {whose} may finish within {limit} s; Ctrl-C again ends {them} now"


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "profiles applied": _applied,
    "draftd serves": lambda event: f"draftd {event['version']} serves at {event['url']}, pid {event['pid']}",
    "draftd stops": _stops,
    "draftd has stopped": lambda _: "draftd has stopped",
    "reload refused; the old profiles stay in force": _refused,
}


@functools.lru_cache(
    maxsize=256
)  # all that have just ended are asked for twice: for the logs and for `draftd up`
def of_request(record: RequestRecord) -> Told:
    """The line of a request that has ended."""
    tone: Tone = "plain"
    if record.status is not None and record.status >= 400:
        tone = "low" if record.status < 500 else "bad"
    return Told(record.began + (record.seconds or 0.0), record.worker or "", _request(record), tone)


def _request(record: RequestRecord) -> str:
    """Status, tokens, speed, acceptance, duration, client: in columns, as far as they are known."""
    known = [] if record.tokens is None else _figures(record)
    client = record.client or "unnamed client"
    told = [str(record.status), *known, f"{_seconds(record.seconds):>7}", client]
    if record.peer is not None:
        told.append(f"{record.profile} at {record.peer}")
    return "  ".join([*told, *_remark(record)])


def _figures(record: RequestRecord) -> list[str]:
    ratio = record.acceptance
    return [
        f"{record.tokens:>5} tokens",
        f"{_figure(record.tokens_per_second):>5} tok/s",
        f"{f'{ratio:.0%}' if ratio is not None else '–':>4} accepted",
    ]


def _remark(record: RequestRecord) -> list[str]:
    if record.status == CLIENT_LEFT and not record.cancelled:
        return ["the client left"]
    first = escape(record.error.partition("\n")[0])
    return [first if len(first) <= MAX_SHOWN else f"{first[:MAX_SHOWN]}…"] if first else []


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def named(names: Sequence[str]) -> str:
    """Some names in a sentence; of many, the first and how many more there are."""
    told = ", ".join(names[:MAX_NAMES])
    return told if len(names) <= MAX_NAMES else f"{told} and {len(names) - MAX_NAMES} more"


def in_column(name: str, names: Iterable[str]) -> str:
    """A worker's name in front of its line, as wide as the longest of `names`; nothing for the daemon's lines."""
    return f"{name:<{min(max(map(len, names), default=0), MAX_COLUMN)}}  " if name else ""


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without the beginning that all share, as far as that ends with a hyphen."""
    names = list(dict.fromkeys(names))
    cut = 0
    if len(names) > 1:
        first, last = min(names), max(names)  # what these two share, all share
        same = next(
            (at for at, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first)
        )
        cut = first.rfind("-", 0, same) + 1
    return {name: name[cut:] or name for name in names}
