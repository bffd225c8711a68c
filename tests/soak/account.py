"""The account after the soak: what clients saw, what the daemon counted, what workers were sent. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.soak.clients import MAX_TOKENS, End, Outcome

MEMORY_SLACK = 8 * 2**20  # bytes that the daemon may have grown by: an allocator does not give all back
ACCEPTED = re.compile(r"Draft tokens accepted: (\d+)/(\d+) \(")

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    what: str
    figure: str
    well: bool


@dataclass(frozen=True)
class Level:
    """What the daemon's process holds at rest: bytes, descriptors, threads."""

    rss: int
    fds: int
    threads: int


@dataclass(frozen=True)
class Story:
    """Everything that is known when the soak is over."""

    outcomes: Sequence[Outcome]
    sent: Counter[str]  # markers that workers were sent, and how often
    metrics: str
    rows: Sequence[Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]  # the daemon's, line by line
    worker_lines: Iterable[str]  # of all workers' logs
    made: Counter[str]  # troubles
    before: Level
    after: Level


def checks(story: Story) -> list[Check]:
    """The whole account."""
    samples = _samples(story.metrics)
    return [
        *_requests(story),
        *_statuses(story, samples),
        *_drafting(story, samples),
        *_restarts(story, samples),
        *_rest(story),
    ]


def _samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def _total(samples: Samples, name: str, **labels: str) -> int:
    """The sum over all series of that name with these labels."""
    return int(
        sum(v for (n, pairs), v in samples.items() if n == name and labels.items() <= dict(pairs).items())
    )


def _requests(story: Story) -> list[Check]:
    ends = Counter(outcome.end for outcome in story.outcomes)
    told = {end: ends[end] for end in End}
    errors = Counter(outcome.detail for outcome in story.outcomes if outcome.end is End.ERROR)
    lost = [outcome for outcome in story.outcomes if outcome.end is End.LOST]
    complete = {outcome.marker for outcome in story.outcomes if outcome.end is End.COMPLETE}
    made_up = sum(story.sent[marker] == 0 for marker in complete)
    doubled = sum(times > 1 for times in story.sent.values())
    return [
        Check("requests", f"{len(story.outcomes)}: {_words(told)}", len(complete) > 0),
        Check("honest errors", _words(errors) or "none", True),
        Check("lost", f"{len(lost)} {[outcome.detail for outcome in lost[:3]] or ''}", not lost),
        Check("sent to a worker twice", str(doubled), doubled == 0),
        Check("answered, but never sent to a worker", str(made_up), made_up == 0),
    ]


def _statuses(story: Story, samples: Samples) -> list[Check]:
    """A client that left cannot know what was counted: 499, or the status of an answer that was on its way."""
    counted = Counter[int]()
    for (name, labels), value in samples.items():
        if name == "draftd_requests_total" and dict(labels)["endpoint"] == "chat.completions":
            counted[int(dict(labels)["status"])] += int(value)
    known = Counter(outcome.status for outcome in story.outcomes if outcome.status is not None)
    over = {status: counted[status] - known[status] for status in counted | known}
    left = sum(outcome.end is End.LEFT for outcome in story.outcomes)
    well = min(over.values(), default=0) >= 0 and sum(over.values()) == left
    figure = f"{_words(counted)} counted; {_words(known)} and {left} left by the clients' count"
    tokens = _total(samples, "draftd_completion_tokens_total")
    seen = sum(outcome.completion_tokens for outcome in story.outcomes)
    unseen = left * MAX_TOKENS  # generated to the end for who left before the last of it was sent
    return [
        Check("requests_total by status", figure, well),
        Check("completion tokens", f"{tokens} counted, {seen} received", seen <= tokens <= seen + unseen),
    ]


def _drafting(story: Story, samples: Samples) -> list[Check]:
    lines = [match for line in story.worker_lines if (match := ACCEPTED.search(line))]
    accepted, proposed = (sum(int(line[group]) for line in lines) for group in (1, 2))
    counted = [_total(samples, f"draftd_draft_tokens_{word}_total") for word in ("accepted", "proposed")]
    figure = f"{counted[0]}/{counted[1]} counted, {accepted}/{proposed} in {len(lines)} lines"
    return [Check("accepted/proposed", figure, counted == [accepted, proposed] and proposed > 0)]


def _restarts(story: Story, samples: Samples) -> list[Check]:
    name = "draftd_worker_restarts_total"
    logged = Counter(line["because"] for line in story.log if line.get("event") == "worker backoff")
    counted = {reason: _total(samples, name, reason=reason) for reason in ("exit", "unhealthy", "config")}
    told = sum(row["restarts"] for row in story.rows)
    well = counted["exit"] == logged["exit"] and counted["unhealthy"] == logged["unhealthy"]
    # A child that was being ended anyway is no crash when it is killed.
    well = well and counted["exit"] <= story.made["killed"] and counted["config"] <= story.made["flags"]
    return [
        Check("trouble made", _words(story.made), bool(story.made)),
        Check("restarts by reason", f"{_words(counted)}; in the log {_words(logged)}", well),
        Check("restarts in status", str(told), told == _total(samples, name)),
    ]


def _rest(story: Story) -> list[Check]:
    before, after = story.before, story.after
    queued = sum(row["queue"] for row in story.rows)
    unready = [row["name"] for row in story.rows if row["state"] != "ready"]
    growth = after.rss - before.rss
    return [
        Check(
            "workers ready, queues empty",
            f"{unready or 'all'} ready, {queued} queued",
            not unready and not queued,
        ),
        Check(
            "memory of the daemon",
            f"{before.rss / 2**20:.1f} MiB after warm-up, {after.rss / 2**20:.1f} MiB at the end",
            growth <= MEMORY_SLACK,
        ),
        Check(
            "its descriptors", f"{before.fds} after warm-up, {after.fds} at the end", after.fds <= before.fds
        ),
        Check(
            "its threads",
            f"{before.threads} after warm-up, {after.threads} at the end",
            after.threads <= before.threads + 1,
        ),
    ]


def _words(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} × {what}" for what, count in sorted(counts.items(), key=str) if count)
