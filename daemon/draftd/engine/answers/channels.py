"""Splits a model's text into what it says, what it thinks, and the tools that it calls. Pure.

mlx_lm knows for each model the marks between these, and its `TextStateMachine` finds them; but it drops the marks.
A call that turns out to be none is text, marks and all, and where a token's text stands is counted in characters.
So here each character of the text comes out again, in order.
"""

from dataclasses import dataclass
from typing import Any

# mlx_lm's names; what stands in its other states is for no client.
NORMAL, REASONING, TOOL = "normal", "reasoning", "tool"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text and the channel that it belongs to. A `mark` is no text of its own: with it `channel` begins."""

    channel: str
    text: str
    mark: bool = False


class Channels:
    """Takes a model's text in pieces. `machine` is mlx_lm's TextStateMachine; without one all is normal text."""

    def __init__(self, machine: Any = None, initial: str = NORMAL) -> None:
        self._machine = machine
        self._state = machine and machine.make_state(initial)

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that are certain: what may be the beginning of a mark is held back."""
        if self._machine is None:
            return [Piece(NORMAL, text)]
        state, segments = self._machine.split(self._state, text)
        if len(segments) > 1:  # a mark: its own text follows from where it ends
            return [piece for character in text for piece in self._character(character)]
        self._state = state
        return [Piece(*segments[0])]

    def finish(self) -> list[Piece]:
        """Return what was held back, as no more text comes."""
        if self._machine is None:
            return []
        self._state, rest, channel = self._machine.flush(self._state)
        return [Piece(channel, rest)]

    def _character(self, character: str) -> list[Piece]:
        held = self._state[3] + character
        self._state, segments = self._machine.split(self._state, character)
        (channel, text), *after = segments
        pieces = [Piece(channel, text)]
        if after:
            pieces.append(Piece(after[0][0], held[len(text) :], mark=True))
        return pieces
