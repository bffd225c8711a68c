"""What an answer cost, in llama.cpp's words."""

from __future__ import annotations

import pytest

from draftd.engine.answers.timings import Timings
from draftd.engine.generation.acceptance import AcceptanceCount


def count(*drafted: bool) -> AcceptanceCount:
    made = AcceptanceCount(4, "paper")
    for one in drafted:
        made.observe("model", 4, drafted=one)
    return made


def test_the_rates_are_those_of_what_was_read_and_of_what_was_generated() -> None:
    told = Timings(began=10.0, first=10.5).told(110, 60, 20, 12.5, count(True, True, True, False))
    assert told == {
        "cache_n": 60,
        "prompt_n": 50,
        "prompt_ms": 500.0,
        "prompt_per_token_ms": 10.0,
        "prompt_per_second": 100.0,
        "predicted_n": 20,
        "predicted_ms": 2000.0,
        "predicted_per_token_ms": 100.0,
        "predicted_per_second": 10.0,
        "draft_n": 4,
        "draft_n_accepted": 3,
    }


@pytest.mark.fault(209)
def test_nothing_is_said_of_the_speed_of_tokens_that_came_at_once() -> None:
    """Five tokens of one round were 24,000 tokens a second."""
    told = Timings(began=0.0, first=1.0, one_round=True).told(3, 0, 5, 1.0002, count(True, True, True, True))
    assert (told["predicted_n"], told["predicted_per_second"]) == (5, 0.0)
    assert told["predicted_ms"] == 0.2


def test_what_was_not_drafted_and_a_cache_that_is_not_known_are_left_out() -> None:
    for drafts in (None, count()):
        told = Timings(began=0.0, first=1.0).told(3, -1, 2, 2.0, drafts)
        assert (told["cache_n"], told["prompt_n"]) == (0, 3)
        assert not {"draft_n", "draft_n_accepted"} & told.keys()


def test_no_tokens_and_no_time_divide_nothing() -> None:
    told = Timings(began=1.0).told(5, 5, 0, 1.0, None)
    assert {name: told[name] for name in told if not name.endswith("_n")} == {
        f"{part}_{figure}": 0.0
        for part in ("prompt", "predicted")
        for figure in ("ms", "per_token_ms", "per_second")
    }
