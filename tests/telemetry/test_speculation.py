"""The figures about drafting: by position, by draft length, and the speedup."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.protocol import MAX_DRAFT_TOKENS, Costs
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from draftd.telemetry.speculation import WINDOW, Speculation
from draftd.web import status_report
from tests.telemetry.scraping import scrape, value

COSTS = Costs(0.02, 0.004, 0.03)
# Rounds of 3, 3 and 1 draft tokens, of which 3, 1 and 0 were kept.
REPORT = GenerationReport(3, 7, 4, 0, 3, (2, 1, 1), (3, 2, 2), 7, None, "paper", COSTS, 1.4)


def drafting(accepted: list[int], proposed: list[int]) -> GenerationReport:
    return GenerationReport(
        rounds=max(proposed, default=0),
        proposed=sum(proposed),
        accepted=sum(accepted),
        accepted_by_position=tuple(accepted),
        proposed_by_position=tuple(proposed),
    )


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("0.1.0", "0.32.2")
    made.declare("fast")
    return made


def test_positions_and_lengths_are_counted(metrics: Metrics) -> None:
    for _ in range(2):
        metrics.record("fast", REPORT)
    for position, (kept, offered) in enumerate([(4, 6), (2, 4), (2, 4)], 1):
        labels = {"profile": "fast", "position": str(position)}
        assert value(metrics, "draft_accepted_by_position_total", **labels) == kept
        assert value(metrics, "draft_proposed_by_position_total", **labels) == offered
    assert value(metrics, "draft_length_count", profile="fast") == 6
    assert value(metrics, "draft_length_sum", profile="fast") == 14
    assert value(metrics, "draft_length_bucket", profile="fast", le="2.0") == 2
    assert value(metrics, "draft_length_bucket", profile="fast", le="3.0") == 6


def test_status_tells_the_same(metrics: Metrics) -> None:
    metrics.record("fast", REPORT)
    assert json.loads(json.dumps(status_report.speculation(metrics.speculation("fast")))) == {
        "proposed_by_position": [3, 2, 2],
        "accepted_by_position": [2, 1, 1],
        "rounds_by_draft_length": [1, 0, 2],
        "requests_by_rule": {"paper": 1},
        "costs": {"single": 0.02, "draft": 0.004, "verify": 0.03},
        "by_drafter": {},
        "speedup_estimate": 1.4,
    }


def test_an_estimate_weighs_requests_by_their_time(metrics: Metrics) -> None:
    assert value(metrics, "draft_speedup_estimate", profile="fast") is None
    for tokens, factor in ((100, 2.0), (100, 0.5)):
        metrics.record("fast", GenerationReport(1, 3, 1, tokens=tokens, speedup=factor))
    assert value(metrics, "draft_speedup_estimate", profile="fast") == pytest.approx(200 / 250)


def test_each_drafter_is_counted_by_itself(metrics: Metrics) -> None:
    for proposed in (3, 4):
        by = {"lookup": DraftAcceptance(2, 8), "model": DraftAcceptance(1, proposed)}
        metrics.record("fast", GenerationReport(2, 8 + proposed, 3, drafters=by))
    assert value(metrics, "draft_proposed_by_drafter_total", profile="fast", drafter="lookup") == 16
    assert value(metrics, "draft_accepted_by_drafter_total", profile="fast", drafter="lookup") == 4
    assert value(metrics, "draft_proposed_by_drafter_total", profile="fast", drafter="model") == 7
    assert value(metrics, "draft_accepted_by_drafter_total", profile="fast", drafter="model") == 2


def test_the_estimate_forgets() -> None:
    known = Speculation()
    for factor in (0.5, *[2.0] * WINDOW):
        known.add(GenerationReport(1, 3, 1, tokens=10, speedup=factor))
    assert known.speedup() == 2.0


def test_a_request_that_drafted_nothing_says_nothing() -> None:
    known = Speculation()
    known.add(GenerationReport(0, 0, 0, tokens=9, rule="plain"))
    assert known == Speculation()


def test_a_worker_cannot_make_series(metrics: Metrics) -> None:
    metrics.record("fast", drafting([1] * 1000, [1] * 1000))
    assert len(positions(metrics)) == MAX_DRAFT_TOKENS
    metrics.retire("fast")
    assert positions(metrics) == []


def positions(metrics: Metrics) -> list[str]:
    return [name for name, _ in scrape(metrics) if name == "draftd_draft_accepted_by_position_total"]


@given(lengths=st.lists(st.integers(1, MAX_DRAFT_TOKENS), max_size=30))
def test_the_lengths_of_rounds_are_found_again(lengths: list[int]) -> None:
    proposed = [sum(length >= place for length in lengths) for place in range(1, max(lengths, default=0) + 1)]
    known = Speculation()
    known.add(drafting([0] * len(proposed), proposed))
    assert sorted(known.lengths.elements()) == sorted(lengths)
