"""The count of a request against a table, and against a model of mlx_lm's loop."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.acceptance import AcceptanceCount

D, T = True, False  # a token of the draft model, of the target model


def count(tokens: list[bool], *, draft_length: int, max_tokens: int = 100) -> AcceptanceCount:
    result = AcceptanceCount(draft_length=draft_length, max_tokens=max_tokens)
    for from_draft in tokens:
        result.observe(from_draft)
    return result


@pytest.mark.parametrize(
    ("name", "tokens", "draft_length", "max_tokens", "rounds", "proposed", "accepted", "truncated"),
    [
        ("no token at all", [], 3, 100, 0, 0, 0, 0),
        ("nothing kept", [T, T], 3, 100, 2, 6, 0, 0),
        ("all kept, then the target's own", [D, D, D, T], 3, 100, 1, 3, 3, 0),
        ("some kept in each of two rounds", [D, T, D, D, T], 3, 100, 2, 6, 3, 0),
        ("the last round may only use what max_tokens leaves", [D, D, T, D], 5, 4, 2, 5, 3, 0),
        ("max_tokens below the draft length", [D, T], 7, 2, 1, 2, 1, 0),
        ("max_tokens reached by the target's token", [T, D, T], 2, 3, 2, 4, 1, 0),
        ("cut inside a round", [D, D, T, D], 5, 100, 2, 10, 3, 1),
        ("cut after the first token", [D], 4, 100, 1, 4, 1, 1),
        ("cut when all proposed were kept: nothing is unknown", [D, D, D], 3, 100, 1, 3, 3, 0),
        ("cut between rounds", [D, T], 3, 100, 1, 3, 1, 0),
        ("drafting switched off", [T, T, T], 0, 100, 0, 0, 0, 0),
    ],
)
def test_table(
    name: str,
    tokens: list[bool],
    draft_length: int,
    max_tokens: int,
    rounds: int,
    proposed: int,
    accepted: int,
    truncated: int,
) -> None:
    got = count(tokens, draft_length=draft_length, max_tokens=max_tokens)
    assert (got.rounds, got.proposed, got.accepted, got.truncated_rounds) == (
        rounds,
        proposed,
        accepted,
        truncated,
    ), name
    assert got.tokens == len(tokens)


def test_counts_by_position_in_the_draft() -> None:
    got = count([D, D, T, T, D, D, D, T], draft_length=3)
    assert got.proposed_by_position == [3, 3, 3]
    assert got.accepted_by_position == [2, 2, 1]


def test_positions_grow_with_what_is_proposed_and_not_with_what_is_asked() -> None:
    assert count([T, T], draft_length=10**9, max_tokens=2).proposed_by_position == [2, 1]


def test_more_drafted_than_proposed_is_an_error_and_not_a_wrong_count() -> None:
    with pytest.raises(IndexError):
        count([D, D], draft_length=1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int]], int]:
    """Draw a draft length, max_tokens, (proposed, kept) of each round, and after how many tokens to cut."""
    draft_length = draw(st.integers(0, 8))
    max_tokens = draw(st.integers(1, 60))
    rounds, emitted = [], 0
    while emitted < max_tokens:
        proposed = min(max_tokens - emitted, draft_length)
        kept = draw(st.integers(0, proposed))
        rounds.append((proposed, kept))
        emitted += kept + (emitted + kept < max_tokens)
    return draft_length, max_tokens, rounds, draw(st.integers(0, emitted))


def emitted_tokens(rounds: list[tuple[int, int]], max_tokens: int) -> Iterator[tuple[int, bool]]:
    """Yield the round and the origin of each token, as speculative_generate_step emits them."""
    emitted = 0
    for number, (_, kept) in enumerate(rounds):
        for _ in range(kept):
            yield number, D
        emitted += kept
        if emitted < max_tokens:
            emitted += 1
            yield number, T


@given(histories())
def test_equals_a_model_of_the_loop(history: tuple[int, int, list[tuple[int, int]], int]) -> None:
    draft_length, max_tokens, rounds, cut = history
    seen = list(emitted_tokens(rounds, max_tokens))[:cut]
    got = count([from_draft for _, from_draft in seen], draft_length=draft_length, max_tokens=max_tokens)

    begun = {number for number, _ in seen}
    kept = {number: sum(d for n, d in seen if n == number) for number in begun}
    open_end = bool(seen) and seen[-1][1] and kept[seen[-1][0]] < rounds[seen[-1][0]][0]
    assert got.proposed == sum(rounds[number][0] for number in begun)
    assert got.rounds == sum(rounds[number][0] > 0 for number in begun)
    assert got.accepted == sum(kept.values()) == sum(got.accepted_by_position)
    assert got.truncated_rounds == open_end
    assert got.proposed_by_position == [
        sum(rounds[number][0] > position for number in begun)
        for position in range(max((rounds[number][0] for number in begun), default=0))
    ]
    assert got.accepted_by_position == [
        sum(kept[number] > position for number in begun) for position in range(len(got.proposed_by_position))
    ]
