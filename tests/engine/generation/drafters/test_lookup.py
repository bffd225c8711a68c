"""Lookups against a search that looks at every place, and the bounds of what is remembered."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.drafters import lookup
from draftd.engine.generation.drafters.lookup import (
    MAX_MATCH,
    MAX_PLACES,
    ORDER,
    AnswerStore,
    Index,
    LookupDrafter,
    Match,
)
from draftd.engine.generation.policy import DraftPolicy
from tests.engine.generation.worlds import slope, stairs
from tests.engine.rewrite_figures import FILES, copied

Found = tuple[int, list[int]] | None  # tokens that agree, and what is drafted

texts = st.lists(st.integers(0, 2), max_size=60)


def drafter(text: Sequence[int], *answers: Sequence[int]) -> LookupDrafter:
    store = AnswerStore()
    for answer in answers:
        store.add(answer)
    return LookupDrafter(text, store)


def seen(match: Match | None, limit: int = 4) -> Found:
    return (match.length, match.draft(limit)) if match else None


def find(text: Sequence[int], *answers: Sequence[int], limit: int = 4) -> Found:
    return seen(drafter(text, *answers).find(), limit)


def naive(source: Sequence[int], text: Sequence[int], limit: int) -> Found:
    """Look at every place of a source, latest first, as far as the drafter looks."""
    best: Found = None
    places = [
        end
        for end in range(ORDER, len(source))
        if len(text) >= ORDER and list(source[end - ORDER : end]) == list(text[-ORDER:])
    ]
    for end in places[: -MAX_PLACES - 1 : -1]:
        length = 0
        while length < min(end, len(text), MAX_MATCH) and source[end - 1 - length] == text[-1 - length]:
            length += 1
        if best is None or length > best[0]:
            rest = list(source[end:])
            best = length, [rest[n % len(rest)] for n in range(limit)]
    return best


# --- what is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 7, 1, 2, 3], (3, [4, 5, 6, 7]), id="what followed the same words"),
        pytest.param([9, 1, 2, 3, 4, 5, 6, 9, 1, 2, 3], (4, [4, 5, 6, 9]), id="all words that agree count"),
        pytest.param([1, 2, 3, 4, 8, 8, 1, 2], None, id="fewer than ORDER words are nothing"),
        pytest.param([1, 2, 3], None, id="a text does not follow itself"),
        pytest.param([], None, id="no text"),
        pytest.param(
            [1, 2, 3, 4, 7, 1, 2, 3, 5, 8, 1, 2, 3],
            (3, [5, 8, 1, 2]),
            id="the latest of those that agree as far",
        ),
        pytest.param(
            [9, 1, 2, 3, 4, 7, 8, 1, 2, 3, 5, 9, 1, 2, 3],
            (4, [4, 7, 8, 1]),
            id="an earlier one if it agrees further",
        ),
    ],
)
def test_finds(text: list[int], found: Found) -> None:
    assert find(text) == found


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        pytest.param([7, 7, 7, 7], [7] * 5, id="a period of one"),
        pytest.param([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2], id="a period of three"),
        pytest.param([1, 2, 3, 4, 1, 2, 3], [4, 1, 2, 3, 4], id="what ends the text is part of its period"),
    ],
)
def test_a_draft_that_runs_over_the_end_goes_on_with_itself(text: list[int], draft: list[int]) -> None:
    found = find(text, limit=5)
    assert found is not None
    assert found[1] == draft


def test_what_was_generated_is_found_as_the_prompt_is() -> None:
    looked = drafter([1, 2, 3, 4])
    assert looked.find() is None
    looked.extend([5, 6])
    looked.extend([1, 2, 3])
    assert seen(looked.find()) == (3, [4, 5, 6, 1])
    looked.extend([9, 4, 5, 6])
    assert seen(looked.find()) == (3, [1, 2, 3, 9])


def test_a_past_answer_is_taken_only_where_it_agrees_further() -> None:
    text = [5, 1, 2, 3, 4, 6, 1, 2, 3]
    assert find(text, [1, 2, 3, 7, 7]) == (3, [4, 6, 1, 2])
    assert find(text, [6, 1, 2, 3, 7, 7]) == (4, [7] * 4)


def test_of_past_answers_the_latest_counts_and_none_runs_into_the_next() -> None:
    assert find([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 5], [6, 7, 8, 9]) == (3, [5] * 4)
    assert find([8, 1, 2], [7, 7, 7, 8], [1, 2, 9, 9, 9]) is None, "no words stand in two answers at once"
    assert find([7, 8, 1, 2, 3], [7, 8], [1, 2, 3, 4]) == (3, [4] * 4)


def test_an_answer_is_kept_when_its_request_ends_without_its_prompt() -> None:
    store = AnswerStore()
    first = LookupDrafter([1, 2, 3, 4], store)
    first.extend([5, 6, 7, 8, 9])
    assert seen(LookupDrafter([5, 6, 7], store).find()) is None
    first.close()
    assert seen(LookupDrafter([5, 6, 7], store).find(), 2) == (3, [8, 9])
    assert seen(LookupDrafter([1, 2, 3], store).find()) is None, "prompts are nobody else's"


@given(texts, st.lists(texts, max_size=4), st.integers(1, 9))
def test_it_finds_what_a_search_through_everything_finds(
    text: list[int], pieces: list[list[int]], limit: int
) -> None:
    looked = drafter(text)
    for piece in [[], *pieces]:
        looked.extend(piece)
        text = text + piece
        assert seen(looked.find(), limit) == naive(text, text, limit)


@given(st.lists(texts, max_size=6), texts)
def test_it_finds_in_answers_what_a_search_through_each_finds(
    answers: list[list[int]], text: list[int]
) -> None:
    store = AnswerStore()
    for answer in answers:
        store.add(answer)
    found = store.find(text)
    by_answer = [naive(answer, text, 4) for answer in answers]
    lengths = [match[0] for match in by_answer if match]
    few = sum(_runs(answer).count(tuple(text[-ORDER:])) for answer in answers) <= MAX_PLACES
    assert (found is None) == (not lengths)
    if found and few:  # of more, the store compares the latest only
        assert found.length == max(lengths)
        assert found.draft(4) in [match[1] for match in by_answer if match and match[0] == found.length]


# --- what is remembered -------------------------------------------------------------------------------------


def _runs(text: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(text[end - ORDER : end]) for end in range(ORDER, len(text))]


@given(st.lists(texts, max_size=8), st.integers(1, 4))
def test_what_is_forgotten_leaves_nothing_behind(answers: list[list[int]], kept: int) -> None:
    index = Index()
    sizes = []
    for answer in answers:
        index.extend(answer)
        index.begin_text()
        sizes.append(len(answer) + 1)
    gone = max(0, len(answers) - kept)
    for size in sizes[:gone]:
        index.forget(size)
    assert len(index.text) == sum(sizes[gone:])
    assert len(index) == len({run for answer in answers[gone:] for run in _runs(answer)})
    for answer in answers:
        left = [naive(other, answer, 4) for other in answers[gone:]]
        assert (index.find(answer) is None) == (not any(left))


def test_a_store_keeps_so_many_tokens_and_gives_up_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_STORED", 40)
    store = AnswerStore()
    for number in range(500):
        store.add([1000 * number + n for n in range(number % 17)])
        assert len(store) <= 40
        assert len(store._index) <= 40
        assert len(store._sizes) <= 40
    assert store.find([499_000, 499_001, 499_002]) is not None
    assert store.find([490_000, 490_001, 490_002]) is None
    assert store.find([1, 2, 3]) is None


def test_answers_that_nothing_can_be_found_in_take_no_room() -> None:
    store = AnswerStore()
    for length in range(ORDER + 1):
        store.add(list(range(length)))
    assert (len(store), len(store._sizes)) == (0, 0)


def test_of_an_answer_that_is_too_long_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_STORED", 40)
    store = AnswerStore()
    store.add(list(range(100)))
    assert len(store) == 40
    assert store.find([50, 51, 52]) is None
    assert seen(store.find([95, 96, 97]), 2) == (3, [98, 99])


def test_a_copy_goes_on_where_it_was_though_more_places_are_alike_than_are_compared() -> None:
    block = [1, 2, 3, 4, 5]
    prompt = [token for number in range(3 * MAX_PLACES) for token in (*block, 100 + number)]
    drafter = LookupDrafter(prompt, AnswerStore())
    drafter.extend(prompt[:6])
    drafter.find()  # of the first block, of which only the number tells it from the others
    for place in range(6, 60):
        drafter.extend([prompt[place]])
        match = drafter.find()
        assert match is not None
        assert match.draft(4) == prompt[place + 1 : place + 5]


@pytest.mark.parametrize("rows", [slope(0.03), slope(0.15), slope(0.3), stairs])
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_file_that_is_written_again_comes_at_four_tokens_a_pass_and_two_and_a_half_times_as_fast(
    file: tuple[str, str], rows: Callable[[int], float]
) -> None:
    found = copied(*file, rows, DraftPolicy())
    assert found.tokens_per_pass >= 4
    assert found.speed >= 2.5


def test_where_each_row_costs_a_whole_pass_writing_a_file_again_is_hardly_slower_for_lookups() -> None:
    policy = DraftPolicy()
    speeds = [copied(*next(iter(FILES.values())), slope(1.0), policy).speed for _ in range(3)]
    assert sum(speeds) / len(speeds) >= 0.97
