"""The steps of the target model's caches, as numbers in an array that all ranks have in the end.

A message is BLOCK numbers, of which the first says how many there are in all; what does not fit comes in a second
array. Each step is its kind and its numbers. Arrays travel by `all_sum`, to which all but the first rank add zeros.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum

import mlx.core as mx

BLOCK = 64  # numbers: a round's steps fit, and it costs what a single number costs


class Step(IntEnum):
    """What is to be done with a cache, which has a number. What follows is the numbers of each step."""

    NEW = 1  # cache
    COPY = 2  # cache, the new one
    ADOPT = 3  # cache, the length that it is cut to
    MARK = 4  # cache
    ROLLBACK = 5  # cache, tokens that stay
    QUANTIZE = 6  # cache, bits, size of a group, start
    DROP = 7  # cache
    READ = 8  # cache, tokens, whether their logits are wanted; the tokens come after the message
    SLEEP = 9


NUMBERS = {
    Step.NEW: 1,
    Step.COPY: 2,
    Step.ADOPT: 2,
    Step.MARK: 1,
    Step.ROLLBACK: 2,
    Step.QUANTIZE: 4,
    Step.DROP: 1,
    Step.READ: 3,
    Step.SLEEP: 0,
}


def taken_apart(numbers: Sequence[int]) -> Iterator[tuple[Step, tuple[int, ...]]]:
    """Yield the steps of a message. Raise ValueError for what is none."""
    place = 0
    while place < len(numbers):
        step = Step(numbers[place])
        end = place + 1 + NUMBERS[step]
        if end > len(numbers):
            raise ValueError(f"{step.name} is cut off")
        yield step, tuple(numbers[place + 1 : end])
        place = end


def tell(numbers: Sequence[int]) -> None:
    """Send a message, as the first rank. Nothing is waited for."""
    first = [len(numbers), *numbers[: BLOCK - 1]]
    begun = [mx.array(first + [0] * (BLOCK - len(first)), mx.int32)]
    if rest := numbers[BLOCK - 1 :]:
        begun.append(mx.array(list(rest), mx.int32))
    for part in begun:
        mx.async_eval(mx.distributed.all_sum(part))  # type: ignore[no-untyped-call]


def hear() -> list[int]:
    """Wait for a message, as another rank."""
    size, *numbers = _summed(BLOCK)
    missing = size - len(numbers)
    return numbers[:size] if missing <= 0 else numbers + _summed(missing)


def _summed(size: int) -> list[int]:
    numbers: list[int] = mx.distributed.all_sum(mx.zeros(size, mx.int32)).tolist()  # type: ignore[assignment]
    return numbers


def share_tokens(tokens: mx.array) -> mx.array:
    """Return the first rank's tokens, (1, n), at each rank; the others give as many zeros."""
    return mx.distributed.all_sum(tokens.astype(mx.int32))
