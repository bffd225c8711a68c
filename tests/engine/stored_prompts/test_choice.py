"""Which stored prompt fits, which are superfluous, and which go first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.stored_prompts.choice import (
    File,
    Stored,
    as_bytes,
    as_tokens,
    common_tokens,
    name_of,
    to_evict,
)

texts = st.lists(st.integers(0, 2), max_size=12)


def stored(tokens: list[int], reach: int = 0) -> Stored:
    return Stored(as_bytes(tokens), reach, size=1)


@given(texts, texts)
def test_what_two_texts_have_in_common_is_counted_in_tokens(a: list[int], b: list[int]) -> None:
    same = [x == y for x, y in zip(a, b, strict=False)] + [False]
    assert common_tokens(as_bytes(a), as_bytes(b)) == same.index(False)
    assert as_tokens(as_bytes(a)) == a


@pytest.mark.parametrize(
    ("tokens", "reach", "prompt", "gain"),
    [
        ([1, 2, 3], 0, [1, 2, 3, 4], 3),
        ([1, 2, 3], 0, [1, 2, 3], 2),  # one is left to continue from
        ([1, 2, 3, 4], 0, [1, 2, 9, 9], 2),
        ([1, 2, 3, 4], 3, [1, 2, 9, 9], 0),  # it cannot be cut to that
        ([1, 2, 3, 4], 4, [1, 2, 3, 4, 5], 4),
        ([1, 2, 3, 4], 4, [1, 2, 3, 4], 0),
        ([9], 0, [1, 2], 0),
    ],
)
def test_what_a_stored_prompt_saves(tokens: list[int], reach: int, prompt: list[int], gain: int) -> None:
    assert stored(tokens, reach).gain(as_bytes(prompt)) == gain


def test_a_longer_prompt_that_can_be_cut_as_far_makes_a_shorter_one_superfluous() -> None:
    assert stored([1, 2, 3]).covers(stored([1, 2]))
    assert not stored([1, 2, 3], reach=3).covers(stored([1, 2]))
    assert not stored([1, 3]).covers(stored([1, 2]))
    assert not stored([1, 2]).covers(stored([1, 2, 3]))


def test_names_of_images_are_no_tokens() -> None:
    with pytest.raises(ValueError, match="not all are tokens"):
        as_bytes([1, -2])


def test_other_models_and_other_tokens_have_other_names() -> None:
    names = {
        name_of(identity, as_bytes(tokens)) for identity in ("a" * 64, "b" * 64) for tokens in ([1], [2])
    }
    assert len(names) == 4


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans())),
    st.integers(0, 30),
    st.integers(0, 9),
)
def test_what_was_least_recently_used_goes_and_no_more_than_has_to(
    sizes: list[tuple[int, int, bool]], bound: int, needed: int
) -> None:
    superseded = {str(number) for number, (_, _, goes_anyway) in enumerate(sizes) if goes_anyway}
    there = [File(str(number), size, used) for number, (size, used, _) in enumerate(sizes)]
    gone = to_evict(there, bound, needed, superseded)
    assert not superseded & {*gone}
    files = [file for file in there if file.name not in superseded]
    kept = [file for file in files if file.name not in gone]
    evicted = [file for name in gone for file in files if file.name == name]
    assert not kept or sum(file.size for file in kept) + needed <= bound
    assert all(one.used <= other.used for one in evicted for other in kept)
    if evicted:
        assert sum(file.size for file in [*kept, evicted[-1]]) + needed > bound
