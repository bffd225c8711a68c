"""How much of a machine's memory each worker may take."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.protocol import HEADROOM, MemoryShare
from draftd.workers.memory_book import MIN_PROMPT_CACHE, MemoryBook

GB = 10**9
Orders = list[tuple[str, str, int | None, int | None]]


def test_a_worker_gets_its_weights_its_cached_prompts_and_headroom() -> None:
    told: list[MemoryShare] = []
    book = MemoryBook(16 * GB)
    book.take("a", 5 * GB, None, told.append)
    assert told == [MemoryShare(7 * GB + HEADROOM, 2 * GB)]
    book.release("a")
    book.take("a", 5 * GB, 1 * GB, told.append)
    assert told[1:] == [MemoryShare(6 * GB + HEADROOM, 1 * GB)]


@pytest.mark.fault(102)
def test_the_last_one_gets_what_is_left_and_the_rest_when_another_has_ended() -> None:
    told: dict[str, list[MemoryShare]] = {"a": [], "b": []}
    book = MemoryBook(10 * GB)
    book.take("a", 5 * GB, 1 * GB, told["a"].append)
    left = 10 * GB - (6 * GB + HEADROOM)
    book.take("b", 4 * GB, None, told["b"].append)
    assert told["b"] == [MemoryShare(left, MIN_PROMPT_CACHE)]
    assert book.left == 0
    book.release("a")
    assert told["b"][1:] == [MemoryShare(4 * GB + 10 * GB // 8 + HEADROOM, 10 * GB // 8)]
    assert len(told["a"]) == 1
    book.release("a")
    assert len(told["b"]) == 2


def test_one_whose_size_nobody_knows_leaves_as_much_to_the_next_as_it_gets() -> None:
    told: list[MemoryShare] = []
    book = MemoryBook(10 * GB)
    book.take("a", None, None, told.append)
    assert told == [MemoryShare(5 * GB, 10 * GB // 8)]
    assert book.left == 5 * GB


sizes = st.none() | st.integers(0, 40 * GB)
orders = st.lists(
    st.tuples(st.sampled_from(["take", "release"]), st.sampled_from("abcd"), sizes, sizes), max_size=30
)


@pytest.mark.fault(102)
@given(whole=st.integers(0, 100 * GB), history=orders)
def test_no_more_than_the_whole_is_given_and_what_was_given_is_not_taken_back(
    whole: int, history: Orders
) -> None:
    book = MemoryBook(whole)
    has: dict[str, int] = {}

    def hear(owner: str, share: MemoryShare) -> None:
        assert share.wired >= has.get(owner, 0)
        assert share.wired + sum(size for other, size in has.items() if other != owner) <= whole
        has[owner] = share.wired

    for order, owner, weights, cache in history:
        has.pop(owner, None)
        book.release(owner)
        if order == "take":
            book.take(owner, weights, cache, partial(hear, owner))
        assert book.left == whole - sum(has.values())
