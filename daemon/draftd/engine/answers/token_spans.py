"""Which tokens an answer's content consists of, and where in it each begins. Pure.

The text of a token is not always the client's: it may be a mark, a thought, part of a tool call, or stand behind a
stop text. And that may be known late, as text is held back. So tokens wait here until their text is shown.
A character can take several tokens: all but the last bring no text, and go where the last one goes.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Group(Generic[T]):
    """Tokens that brought their text together, and how much of it is not yet known."""

    tokens: list[T] = field(default_factory=list)
    left: int = 0
    shown: bool = False


class TokenSpans(Generic[T]):
    """`token` and `text` are called in the order of the model's text, `show` when the client gets some of it."""

    def __init__(self) -> None:
        self._open: _Group[T] = _Group()
        self._groups: deque[_Group[T]] = deque()
        self._runs: deque[list[int]] = deque()  # length and whether it is content
        self._to_show = 0
        self._offset = 0

    def token(self, token: T | None, length: int) -> None:
        """Take the next token, None for the end of the text, with the length of the text that it brought."""
        if token is not None:
            self._open.tokens.append(token)
        if length:
            self._open.left = length
            self._groups.append(self._open)
            self._open = _Group()

    def text(self, length: int, *, content: bool) -> None:
        """Say of the next `length` characters of the model's text whether they are content."""
        if length:
            self._runs.append([length, content])

    def show(self, length: int) -> None:
        """Say that the client gets the next `length` characters of the content."""
        self._to_show += length

    def take(self) -> list[tuple[int, T]]:
        """Return the tokens of which the first character is shown now, each with its place in the content."""
        shown: list[tuple[int, T]] = []
        while self._groups and self._runs:
            group, run = self._groups[0], self._runs[0]
            length = min(group.left, run[0], self._to_show if run[1] else group.left)
            if not length:
                break
            if run[1] and not group.shown:
                group.shown = True
                shown += [(self._offset, token) for token in group.tokens]
            self._advance(group, run, length)
        return shown

    def _advance(self, group: _Group[T], run: list[int], length: int) -> None:
        if run[1]:
            self._offset += length
            self._to_show -= length
        group.left -= length
        run[0] -= length
        if not group.left:
            self._groups.popleft()
        if not run[0]:
            self._runs.popleft()
