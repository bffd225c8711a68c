"""Which drafter each piece of an answer's text is from. Pure.

As with log-probabilities (see `token_spans`), what becomes of a token's text is known later: a stop text may still
end it, a mark is shown to nobody. So who drafted it waits here, in the order of the text, until that is known.
"""

from collections import deque
from dataclasses import dataclass, field

DRAFTER_ATTRIBUTE = "draftd_drafter"  # of mlx_lm's Response: who drafted its token, where anybody did


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token brought to the shown text. `drafter` is None where the target model chose it by itself."""

    text: str
    drafter: str | None

    def told(self) -> dict[str, str | None]:
        """Return it as it stands in an answer."""
        return {"text": self.text, "drafter": self.drafter}


@dataclass(slots=True)
class _Run:
    drafter: str | None
    left: int  # characters


@dataclass(slots=True)
class DraftedText:
    """`token` and `place` are called in the order of the model's text, `show` when the client gets some content."""

    _model: deque[_Run] = field(default_factory=deque)  # not placed yet
    _content: deque[_Run] = field(default_factory=deque)  # placed, and not shown yet

    def token(self, drafter: str | None, length: int) -> None:
        """Take the next token, with the length of the text that it brought."""
        if length:
            self._model.append(_Run(drafter, length))

    def content(self, length: int) -> None:
        """Say that the next `length` characters of the model's text are content, to be shown later."""
        self._content.extend(_taken(self._model, length))

    def other(self, text: str) -> list[Piece]:
        """Return the pieces of the model's text that comes next, which is no content."""
        return _pieces(self._model, text)

    def show(self, text: str) -> list[Piece]:
        """Return the pieces of the content that the client gets now."""
        return _pieces(self._content, text)


def _pieces(runs: deque[_Run], text: str) -> list[Piece]:
    made, at = [], 0
    for run in _taken(runs, len(text)):
        made.append(Piece(text[at : at + run.left], run.drafter))
        at += run.left
    return made


def _taken(runs: deque[_Run], length: int) -> list[_Run]:
    """Take so many characters from the front."""
    taken = []
    while length and runs:
        part = min(length, runs[0].left)
        taken.append(_Run(runs[0].drafter, part))
        runs[0].left -= part
        if not runs[0].left:
            runs.popleft()
        length -= part
    return taken
