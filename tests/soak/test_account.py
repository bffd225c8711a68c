"""The account of the soak finds what it should find: each check fails on its own kind of fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.harness import Answer
from tests.soak.account import MEMORY_SLACK, Level, Story, checks
from tests.soak.clients import End, Outcome, judge

METRICS = """
draftd_requests_total{endpoint="chat.completions",profile="one",status="200"} 2
draftd_requests_total{endpoint="chat.completions",profile="one",status="499"} 1
draftd_requests_total{endpoint="chat.completions",profile="one",status="502"} 1
draftd_completion_tokens_total{profile="one"} 12
draftd_draft_tokens_accepted_total{profile="one"} 7
draftd_draft_tokens_proposed_total{profile="one"} 20
draftd_worker_restarts_total{profile="one",reason="exit"} 1
"""
OUTCOMES = [
    Outcome("a", True, End.COMPLETE, 200, 5),
    Outcome("b", False, End.COMPLETE, 200, 7),
    Outcome("c", True, End.LEFT),
    Outcome("d", True, End.ERROR, 502, 0, "worker_lost"),
]
LEVEL = Level(rss=60 * 2**20, fds=17, threads=5)
GOOD = Story(
    outcomes=OUTCOMES,
    sent=Counter(a=1, b=1, d=1),
    metrics=METRICS,
    rows=[{"name": "one", "restarts": 1, "queue": 0, "state": "ready"}],
    log=[{"event": "worker backoff", "because": "exit"}],
    worker_lines=["Draft tokens accepted: 3/10 (30%)", "x", "Draft tokens accepted: 4/10 (40%)"],
    made=Counter(killed=1),
    before=LEVEL,
    after=LEVEL,
)


def wrong(story: Story) -> list[str]:
    return [check.what for check in checks(story) if not check.well]


def test_a_good_story_is_well() -> None:
    assert wrong(GOOD) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"outcomes": [*OUTCOMES, Outcome("e", True, End.LOST)]}, ["lost"]),
        ({"outcomes": OUTCOMES[1:]}, ["requests_total by status"]),
        ({"outcomes": [replace(OUTCOMES[0], completion_tokens=6), *OUTCOMES[1:]]}, ["completion tokens"]),
        ({"metrics": METRICS.replace("} 12", "} 100")}, ["completion tokens"]),
        ({"outcomes": OUTCOMES[:2] + OUTCOMES[3:]}, ["requests_total by status"]),
        ({"sent": Counter(a=2, b=1)}, ["sent to a worker twice"]),
        ({"sent": Counter(a=1)}, ["answered, but never sent to a worker"]),
        ({"worker_lines": ["Draft tokens accepted: 3/10 (30%)"]}, ["accepted/proposed"]),
        ({"log": []}, ["restarts by reason"]),
        ({"made": Counter(hung=1)}, ["restarts by reason"]),
        ({"rows": [{"name": "one", "restarts": 2, "queue": 0, "state": "ready"}]}, ["restarts in status"]),
        (
            {"rows": [{"name": "one", "restarts": 1, "queue": 1, "state": "ready"}]},
            ["workers ready, queues empty"],
        ),
        (
            {"rows": [{"name": "one", "restarts": 1, "queue": 0, "state": "failed"}]},
            ["workers ready, queues empty"],
        ),
        ({"after": replace(LEVEL, rss=LEVEL.rss + MEMORY_SLACK + 1)}, ["memory of the daemon"]),
        ({"after": replace(LEVEL, fds=18)}, ["its descriptors"]),
        ({"after": replace(LEVEL, threads=7)}, ["its threads"]),
    ],
)
def test_each_wrong_is_found(change: dict[str, Any], found: list[str]) -> None:
    assert wrong(replace(GOOD, **change)) == found


LAST = 'data: {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]}\n\n'
USAGE = 'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\n'
ERROR = 'data: {"error": {"message": "x", "code": "worker_lost"}}\n\n'
DONE = "data: [DONE]\n\n"
WHOLE = '{"choices": [{"finish_reason": "stop"}], "usage": {"completion_tokens": 3}}'


@pytest.mark.parametrize(
    ("status", "text", "cut", "streamed", "end", "counted"),
    [
        (200, LAST + USAGE + DONE, False, True, End.COMPLETE, 200),
        (200, LAST + ERROR, True, True, End.ERROR, 502),
        (200, LAST + ERROR, False, True, End.LOST, None),  # an error, and the end of a whole answer
        (200, LAST + USAGE, False, True, End.LOST, None),  # the end mark is missing
        (200, USAGE + DONE, False, True, End.LOST, None),  # nobody said that it is finished
        (200, LAST, True, True, End.LOST, None),  # cut without a word
        (200, "", True, True, End.LOST, None),
        (200, WHOLE, False, False, End.COMPLETE, 200),
        (200, WHOLE[:-9], False, False, End.LOST, None),
        (200, WHOLE, True, False, End.LOST, None),
        (503, '{"error": {"code": "worker_unavailable"}}', False, True, End.ERROR, 503),
        (502, "Bad Gateway", False, False, End.LOST, None),
    ],
)
def test_a_client_takes_only_a_whole_answer_or_an_honest_error(
    status: int, text: str, cut: bool, streamed: bool, end: End, counted: int | None
) -> None:
    assert judge(Answer(status, {}, text, cut), streamed=streamed)[:2] == (end, counted)
