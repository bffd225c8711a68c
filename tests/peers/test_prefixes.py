"""What machines have read: how much of a prompt they share, and what they are believed to have forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from draftd.peers.prefixes import BLOCK, MAX_BLOCKS, Remembered, prompt_of

texts = st.binary(max_size=6 * BLOCK)


@given(texts, texts, texts)
def test_two_prompts_share_the_blocks_that_they_begin_with_alike(
    head: bytes, one: bytes, other: bytes
) -> None:
    first, second = prompt_of("m", head + one), prompt_of("m", head + other)
    same = next(
        (at for at, pair in enumerate(zip(first.chain, second.chain, strict=False)) if pair[0] != pair[1]),
        min(len(first.chain), len(second.chain)),
    )
    whole = 0
    while (whole + 1) * BLOCK <= min(len(head + one), len(head + other)) and (head + one)[
        : (whole + 1) * BLOCK
    ] == (head + other)[: (whole + 1) * BLOCK]:
        whole += 1
    assert same == whole
    remembered = Remembered()
    remembered.add(first.chain)
    assert remembered.shared(second.chain) == whole


def test_another_model_shares_nothing_and_the_length_is_bounded() -> None:
    text = b"x" * (BLOCK * (MAX_BLOCKS + 3))
    chain = prompt_of("a", text).chain
    assert len(chain) == MAX_BLOCKS
    assert len(set(chain)) == MAX_BLOCKS  # the same block at another place is another one
    assert chain[0] != prompt_of("b", text).chain[0]
    assert prompt_of("a", b"x" * (BLOCK - 1)).chain == ()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=30), st.integers(8, 40)
)
def test_what_was_used_last_is_kept_and_no_prompt_loses_its_beginning_before_its_end(
    uses: list[tuple[int, int]], limit: int
) -> None:
    remembered = Remembered(limit)
    for which, length in uses:
        remembered.add([which * 100 + at for at in range(length)])
    which, length = uses[-1]
    assert remembered.shared([which * 100 + at for at in range(length)]) == min(length, limit)
    for one in range(6):
        chain = [one * 100 + at for at in range(12)]
        kept = [at for at, block in enumerate(chain) if block in remembered._blocks]
        assert kept == list(range(len(kept)))


def test_a_surprise_forgets_what_was_used_before_it_and_keeps_what_was_used_since() -> None:
    remembered = Remembered()
    old, middle, new = ([start + at for at in range(5)] for start in (0, 100, 200))
    for chain in (old, middle, new):
        remembered.add(chain)
    remembered.forget(middle, 2)
    assert [remembered.shared(chain) for chain in (old, middle, new)] == [0, 2, 5]
    remembered.forget(new, 5)  # all of it: no surprise
    assert [remembered.shared(chain) for chain in (old, middle, new)] == [0, 2, 5]
    remembered.clear()
    assert remembered.shared(new) == 0
