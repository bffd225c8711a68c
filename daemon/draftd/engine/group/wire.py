"""What the launcher and a rank say to each other: JSON objects, one a line, over the rank's stdin and stdout.

The launcher begins with a Setup. The rank answers HELLO once it has imported everything. Then the launcher has
it look whether ports are free (PORTS, BUSY), and lets all ranks go on at once (GO), as they would not wait for
each other for long. From its start to its end the launcher writes an empty line each second; SHARE says what a rank
may take of the memory, and WAKE that the first rank goes on. The rank says ALIVE each second. The first rank's
records come between, as they are. Pure.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

HELLO, PORTS, BUSY, GO, SHARE, WAKE, ALIVE = "hello", "ports", "busy", "go", "share", "wake", "alive"

BEAT_S = 1.0  # between two signs of life, each way
SILENCE_S = 30.0  # without one from the launcher end a rank
MAX_LINE = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """What a rank has to know before anything is imported. `secret` is the first rank's."""

    rank: int
    size: int
    flags: list[str]
    backend: str
    environ: dict[str, str] = field(default_factory=dict)
    secret: str = ""

    def line(self) -> bytes:
        """Return it as it is sent."""
        return line(asdict(self))

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return what such a line says. Raise ValueError for any other."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from error


def line(said: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(said).encode() + b"\n"


def parse(text: bytes) -> dict[str, Any]:
    """Return a message; an empty one for an empty line. Raise ValueError for what is none."""
    said = json.loads(text) if text.strip() else {}
    if not isinstance(said, dict):
        raise ValueError("it is no object")
    return said
