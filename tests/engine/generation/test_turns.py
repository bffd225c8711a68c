"""Who goes next, and how much of a prompt is read at a time."""

from collections.abc import Callable

import pytest

from draftd.engine.generation.turns import FIRST_PIECE, MAX_HELD_UP, Company, Pace, Pause, Turns, groups

LIMIT = 2048


def test_each_that_writes_has_a_round_in_a_cycle_and_one_of_those_that_read_a_piece() -> None:
    turns: Turns[str] = Turns()

    def cycle() -> tuple[list[str], list[str]]:
        return turns.writing, turns.reading

    assert cycle() == ([], [])
    for name in ("a", "b", "c", "d"):
        turns.join(name)
    assert cycle() == ([], ["a"])
    turns.paused("a", Pause.ROUND)
    assert cycle() == (["a"], ["b"])
    turns.paused("b", Pause.READING)
    assert cycle() == (["a"], ["c"]), "prompts are read in turns"
    turns.paused("c", Pause.ROUND)
    assert cycle() == (["a", "c"], ["d"])
    turns.leave("d")
    turns.leave("a")
    assert (*cycle(), list(turns), len(turns)) == (["c"], ["b"], ["c", "b"], 2)
    turns.paused("c", Pause.READING)
    assert cycle() == ([], ["b"])


def test_texts_of_about_one_length_are_put_together() -> None:
    lengths = {"a title": 40, "a chat": 2000, "a file": 2500, "two files": 4000, "an agent": 30_000}
    assert groups(lengths) == [["a title", "a chat"], ["a file", "two files"], ["an agent"]]


def piece_after(seconds: Callable[[int], float], passes: int = 8) -> int:
    """Return how much is read at a time once some passes have been timed."""
    pace = Pace(Company(2))
    for _ in range(passes):
        pace.took(1, seconds(1))
        tokens = pace.tokens(LIMIT)
        pace.took(tokens, seconds(tokens))
    return pace.tokens(LIMIT)


@pytest.mark.parametrize("each", [0.0002, 0.001, 0.01, 0.04])
@pytest.mark.parametrize("fixed", [0.0, 0.02])
def test_others_are_held_up_for_a_tenth_of_a_second(each: float, fixed: float) -> None:
    tokens = piece_after(lambda n: fixed + each * n)
    assert MAX_HELD_UP - 2 * each <= fixed + each * tokens <= MAX_HELD_UP + each / 2


def test_where_a_token_alone_takes_as_long_as_that_no_more_is_read_with_it() -> None:
    assert piece_after(lambda n: 0.09 * n) == 1


def test_where_a_pass_has_a_high_price_of_its_own_a_piece_may_take_twice_that() -> None:
    tokens = piece_after(lambda n: 0.2 + 0.01 * n)
    assert tokens == pytest.approx(20, abs=2)


def test_alone_as_much_is_read_as_the_flag_says() -> None:
    company = Company(1)
    pace = Pace(company)
    pace.took(100, 10)
    assert pace.tokens(LIMIT) == LIMIT
    company.size = 2
    assert pace.tokens(LIMIT) == 1


def test_the_first_piece_is_a_short_one() -> None:
    pace = Pace(Company(2))
    assert (pace.tokens(LIMIT), pace.tokens(4)) == (FIRST_PIECE, 4)


def test_a_machine_that_gets_slower_is_learnt_anew() -> None:
    pace = Pace(Company(2))
    for _ in range(6):
        pace.took(100, 0.1)
    assert pace.tokens(LIMIT) == pytest.approx(100, abs=3)
    for _ in range(6):
        pace.took(100, 0.2)
    assert pace.tokens(LIMIT) == pytest.approx(50, abs=3)


def test_a_first_pass_in_which_kernels_are_compiled_does_not_make_prompts_be_read_token_by_token() -> None:
    pace = Pace(Company(2))
    pace.took(FIRST_PIECE, 2.0)  # as seen on a GPU, where each pass takes 8 ms from then on
    for _ in range(12):
        pace.took(pace.tokens(LIMIT), 0.008)
    assert pace.tokens(LIMIT) > 100
