"""The count of a request against a table, and against a model of the loop."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.acceptance import AcceptanceCount, Tally
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

D, T = True, False  # a token of the draft, of the target model
ALONE = "alone"


@dataclass(frozen=True)
class Round:
    """What one round proposes, nothing if it is `alone`, and which of its tokens are given out, in order."""

    drafter: str
    proposed: int
    tokens: tuple[bool, ...]


def model(proposed: int, *tokens: bool) -> Round:
    return Round(MODEL_DRAFTER, proposed, tokens)


def lookup(proposed: int, *tokens: bool) -> Round:
    return Round(LOOKUP_DRAFTER, proposed, tokens)


ONE = Round(ALONE, 0, (T,))


def count(*rounds: Round) -> AcceptanceCount:
    result = AcceptanceCount(draft_length=3, rule="plain")
    for one in rounds:
        for drafted in one.tokens:
            result.observe(one.drafter, one.proposed, drafted=drafted)
    return result


@pytest.mark.parametrize(
    ("name", "rounds", "by_model", "truncated"),
    [
        ("no token at all", [], (0, 0, 0), 0),
        ("nothing kept", [model(3, T), model(3, T)], (2, 6, 0), 0),
        ("all kept, then the target's own", [model(3, D, D, D, T)], (1, 3, 3), 0),
        ("some kept in each of two rounds", [model(3, D, T), model(3, D, D, T)], (2, 6, 3), 0),
        ("a round of another length each time", [model(1, D, T), model(5, D, T), model(2, T)], (3, 8, 2), 0),
        ("cut inside a round", [model(5, D, D, T), model(5, D)], (2, 10, 3), 1),
        ("cut when all proposed were kept: nothing is unknown", [model(3, D, D, D)], (1, 3, 3), 0),
        ("cut between rounds", [model(3, D, T)], (1, 3, 1), 0),
        ("tokens that came alone in between", [ONE, model(2, D, T), ONE, ONE, model(2, T)], (2, 4, 1), 0),
    ],
)
def test_table(name: str, rounds: list[Round], by_model: tuple[int, int, int], truncated: int) -> None:
    got = count(*rounds)
    assert (got.rounds, got.proposed, got.accepted) == by_model, name
    assert got.truncated_rounds == truncated
    assert got.tokens == sum(len(one.tokens) for one in rounds)
    assert got.alone == rounds.count(ONE)


def test_each_drafter_has_a_count_of_its_own() -> None:
    got = count(model(3, D, T), lookup(8, D, D, D, T), ONE, model(3, T), lookup(2, D, D, T))
    assert got.drafters == {MODEL_DRAFTER: Tally(2, 6, 1), LOOKUP_DRAFTER: Tally(2, 10, 5)}
    assert (got.rounds, got.proposed, got.accepted) == (4, 16, 6)
    assert list(count(model(3, D, T)).drafters) == [MODEL_DRAFTER], "one that never drafted is not named"


def test_counts_by_position_in_the_draft() -> None:
    got = count(model(3, D, D, T), model(3, T), lookup(4, D, D, D, T))
    assert got.proposed_by_position == [3, 3, 3, 1]
    assert got.accepted_by_position == [2, 2, 1, 0]


def test_more_drafted_than_proposed_is_an_error_and_not_a_wrong_count() -> None:
    with pytest.raises(IndexError):
        count(model(1, D, D))


@st.composite
def histories(draw: st.DrawFn) -> list[Round]:
    """Draw the rounds of an answer, of which the last may have been cut off anywhere."""
    rounds = []
    for _ in range(draw(st.integers(0, 12))):
        drafter = draw(st.sampled_from([ALONE, MODEL_DRAFTER, LOOKUP_DRAFTER]))
        proposed = 0 if drafter == ALONE else draw(st.integers(1, 9))
        rounds.append(Round(drafter, proposed, (D,) * draw(st.integers(0, proposed)) + (T,)))
    if rounds:
        last = rounds[-1]
        rounds[-1] = Round(last.drafter, last.proposed, last.tokens[: draw(st.integers(0, len(last.tokens)))])
    return rounds


def begun(rounds: list[Round], drafter: str | None = None) -> Iterator[Round]:
    """Yield the rounds with a draft of which a token was given out."""
    return (one for one in rounds if one.proposed and one.tokens and drafter in {None, one.drafter})


@given(histories())
def test_equals_a_model_of_the_loop(rounds: list[Round]) -> None:
    got = count(*rounds)
    for drafter in (MODEL_DRAFTER, LOOKUP_DRAFTER):
        own = list(begun(rounds, drafter))
        tally = Tally(len(own), sum(one.proposed for one in own), sum(sum(one.tokens) for one in own))
        assert got.drafters.get(drafter, Tally()) == tally
    own = list(begun(rounds))
    cut = (
        bool(own) and own[-1] is rounds[-1] and own[-1].tokens[-1] and len(own[-1].tokens) < own[-1].proposed
    )
    assert got.truncated_rounds == cut
    longest = max((one.proposed for one in own), default=0)
    assert got.proposed_by_position == [sum(one.proposed > n for one in own) for n in range(longest)]
    assert got.accepted_by_position == [sum(sum(one.tokens) > n for one in own) for n in range(longest)]
