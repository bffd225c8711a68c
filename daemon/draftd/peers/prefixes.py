"""Which prompts a machine has read, as far as that can be known from outside. Pure.

A prompt is cut into blocks of bytes, and each block gets a number that depends on all blocks before it. Two prompts
that begin alike share their first numbers, so the numbers that a machine has been sent tell how much of the next
prompt is in its cache. No text is kept. A machine forgets what it has not used for longest, and nobody here knows
when; an answer says how many tokens were cached, and `Remembered` trusts that more than itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from draftd.peers.bodies import Body

BLOCK = 512  # bytes, about a hundred tokens
MAX_BLOCKS = 8192  # of a prompt; what follows counts as new
MAX_REMEMBERED = 65_536  # blocks of each machine: 32 MB of text

Chain = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is known of a prompt here: how many bytes it has, and the numbers of its blocks."""

    size: int
    chain: Chain


@dataclass(frozen=True, slots=True)
class Away:
    """What a peer would be sent, and what is known of its prompt. `only`: this machine does not have the model."""

    payload: Body
    prompt: Prompt
    only: bool


def prompt_of(model: str, prompt: bytes) -> Prompt:
    """The numbers of the whole blocks of a prompt. They differ from model to model, as the caches do."""
    key = blake2b(model.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    numbers = []
    for at in range(0, min(len(prompt) - BLOCK + 1, BLOCK * MAX_BLOCKS), BLOCK):
        key = blake2b(prompt[at : at + BLOCK], digest_size=8, key=key).digest()
        numbers.append(int.from_bytes(key))
    return Prompt(len(prompt), tuple(numbers))


class Remembered:
    """The blocks that one machine has been sent, the least recently used first."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def shared(self, chain: Sequence[int]) -> int:
        """How many blocks at the beginning of a prompt it has read."""
        return next((at for at, block in enumerate(chain) if block not in self._blocks), len(chain))

    def add(self, chain: Sequence[int]) -> None:
        """It has been sent this prompt. When room is needed, the end of a prompt goes before its beginning."""
        for block in reversed(chain):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._limit:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        """It has been started again."""
        self._blocks.clear()

    def forget(self, chain: Sequence[int], had: int) -> None:
        """It turned out to have only the first `had` blocks of this prompt. What it has used less recently than the
        block after those must be gone as well.
        """
        while had < len(chain) and chain[had] in self._blocks:
            self._blocks.popitem(last=False)
