"""Which stored prompts fit a prompt, which one makes another superfluous, and which go first. Pure.

Tokens are bytes here, TOKEN_BYTES for each: so long texts are compared by comparing memory.
"""

import hashlib
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from draftd.protocol import PROMPT_CACHE_SUFFIX

TOKEN_BYTES = 4
_CODE = "I"


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored prompt: its tokens, the fewest of them that its layers can be cut to, and its bytes."""

    tokens: bytes
    reach: int
    size: int

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return len(self.tokens) // TOKEN_BYTES

    def gain(self, prompt: bytes) -> int:
        """Return how many tokens of a prompt need not be read with it; one is always left to continue from."""
        common = min(common_tokens(self.tokens, prompt), len(prompt) // TOKEN_BYTES - 1)
        return common if common >= self.reach else 0

    def covers(self, other: "Stored") -> bool:
        """Whether whatever the other one can do, this one can."""
        return self.reach <= other.reach and self.tokens.startswith(other.tokens)


@dataclass(frozen=True, slots=True)
class File:
    """A file in the folder, and when it was last used, in seconds."""

    name: str
    size: int
    used: float


def as_bytes(tokens: Sequence[int]) -> bytes:
    """Return tokens as bytes. Raise ValueError for what are no tokens, such as the name of an image."""
    try:
        return array(_CODE, tokens).tobytes()
    except (OverflowError, TypeError) as error:
        raise ValueError(f"not all are tokens: {error}") from error


def as_tokens(data: bytes) -> list[int]:
    """Return the tokens again."""
    return array(_CODE, data).tolist()


def common_tokens(a: bytes, b: bytes) -> int:
    """Return how many tokens two texts have in common at their beginnings."""
    low, high = 0, min(len(a), len(b)) // TOKEN_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        part = slice(low * TOKEN_BYTES, middle * TOKEN_BYTES)
        if a[part] == b[part]:
            low = middle
        else:
            high = middle - 1
    return low


def beginning_of_name(identity: str) -> str:
    """Return how the names of all files begin that belong to the models and settings of this `identity`."""
    return f"{identity[:24]}-"


def name_of(identity: str, tokens: bytes) -> str:
    """Return the name of the file for these tokens."""
    return f"{beginning_of_name(identity)}{hashlib.sha256(tokens).hexdigest()[:24]}{PROMPT_CACHE_SUFFIX}"


def to_evict(
    files: Iterable[File], max_bytes: int, needed: int, superseded: Collection[str] = ()
) -> list[str]:
    """Return the names of the files that have to go, least recently used first, for `needed` bytes to fit.

    The `superseded` go anyway, so they are not among these and take no room.
    """
    by_use = sorted((file for file in files if file.name not in superseded), key=lambda file: file.used)
    surplus = sum(file.size for file in by_use) + needed - max_bytes
    names = []
    for file in by_use:
        if surplus <= 0:
            break
        names.append(file.name)
        surplus -= file.size
    return names
