"""Numbers of several sequences in one array, of which each sequence has its part.

Theory of operation. An operation takes the host as long for one row as for all, and so does fetching a number. So
what a pass gives, and what is drawn from it, stays in arrays of all sequences. Each of them holds views, and its
part is cut out only where somebody asks for it: for penalties, a grammar, or log-probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx


class Fetched:
    """An array of integers, fetched once for all who ask for numbers of it. Asking waits for the device."""

    def __init__(self, array: mx.array) -> None:
        self.array = array
        self._numbers: Any = None

    @property
    def numbers(self) -> Any:
        """As Python numbers, in lists as the array has axes."""
        if self._numbers is None:
            self._numbers = self.array.tolist()
        return self._numbers


@dataclass(slots=True, eq=False)
class Drawn:
    """A token that was drawn, one of several; `shaped`, (tokens, vocabulary), are the logits they were drawn from.

    It may still be being computed.
    """

    tokens: Fetched
    place: int
    shaped: mx.array

    @property
    def token(self) -> int:
        """Waits for the device."""
        number: int = self.tokens.numbers[self.place]
        return number

    @property
    def alone(self) -> mx.array:
        """The token in an array of its own, (1,)."""
        tokens = self.tokens.array
        one = tokens if tokens.size == 1 else tokens[self.place : self.place + 1]
        return one.astype(mx.uint32)

    @property
    def row(self) -> mx.array:
        """The logits that it was drawn from, (1, vocabulary)."""
        return self.shaped[self.place : self.place + 1]


Tokens = Sequence["int | Drawn"]
"""Tokens of one sequence; some may still be being computed."""


@dataclass(slots=True, eq=False)
class Rows:
    """Logits at `count` neighbouring places of one sequence, in those of a pass over several of them.

    `logits`, (sequences, width, vocabulary), stand after the tokens that were read, `lines`, (sequences, width).
    The request sees as many of the vocabulary as `vocabulary` says; all there are, if that is 0.
    """

    logits: mx.array
    lines: mx.array
    sequence: int
    first: int
    count: int
    vocabulary: int = 0

    @classmethod
    def of(cls, array: mx.array) -> "Rows":
        """Return rows of their own, (rows, vocabulary), as if they stood after tokens 0."""
        return cls(array[None], mx.zeros((1, len(array)), mx.uint32), 0, 0, len(array))

    @property
    def array(self) -> mx.array:
        """The rows alone, (count, vocabulary)."""
        own = self.logits[self.sequence, self.first : self.first + self.count]
        return fitted(own, self.vocabulary) if self.vocabulary else own

    def last(self, count: int) -> "Rows":
        """Return the last ones."""
        return self if count == self.count else self.part(self.count - count, count)

    def part(self, start: int, count: int) -> "Rows":
        """Return some of them."""
        return Rows(self.logits, self.lines, self.sequence, self.first + start, count, self.vocabulary)

    def seen_as(self, vocabulary: int) -> "Rows":
        """Return them for a vocabulary of that size."""
        if self.logits.shape[-1] == vocabulary:
            return self
        return Rows(self.logits, self.lines, self.sequence, self.first, self.count, vocabulary)

    def replaced(self, array: mx.array) -> "Rows":
        """Return others in their places, (count, vocabulary)."""
        lines = self.lines[self.sequence : self.sequence + 1, self.first : self.first + self.count]
        return Rows(array[None], lines, 0, 0, self.count)


def fitted(rows: mx.array, vocabulary: int) -> mx.array:
    """Return rows, (..., n), as long as the vocabulary; a token that they lack is impossible.

    Models of one family pad their vocabularies differently: no token is proposed that the target model lacks.
    """
    missing = vocabulary - rows.shape[-1]
    if missing > 0:
        return mx.pad(rows, [*[(0, 0)] * (rows.ndim - 1), (0, missing)], constant_values=-mx.inf)
    return rows[..., :vocabulary] if missing else rows


def side_by_side(views: Sequence[Rows], count: int) -> tuple[mx.array, mx.array]:
    """Return the logits of several sequences in one pass, (views, count, vocabulary), and what they stand after.

    From the first place of each; what a shorter one has beyond its end means nothing.
    """
    one = views[0]
    part: Any = slice(one.sequence, one.sequence + 1), slice(one.first, one.first + count)
    if len(views) > 1:
        part = _places(views, count)
    logits = one.logits[part]
    return fitted(logits, one.vocabulary) if one.vocabulary else logits, one.lines[part]


def _places(views: Sequence[Rows], count: int) -> tuple[Any, Any]:
    """Return where the first places of each stand in a pass: as slices, if they are a block of it."""
    sequences, firsts = [view.sequence for view in views], [view.first for view in views]
    first, last = sequences[0], sequences[-1]
    if len(set(firsts)) == 1 and sequences == list(range(first, last + 1)):
        return slice(first, last + 1), slice(firsts[0], firsts[0] + count)
    end = views[0].logits.shape[1] - 1
    columns = [[min(place + n, end) for n in range(count)] for place in firsts]
    return mx.array(sequences)[:, None], mx.array(columns)


def row_of_each(rows: Sequence[Drawn | mx.array]) -> mx.array:
    """Return the logits that some tokens were drawn from, or rows like those, (1, vocabulary), as one array."""
    drawn = [row for row in rows if isinstance(row, Drawn)]
    if len(drawn) < len(rows) or any(one.shaped is not drawn[0].shaped for one in drawn):
        return mx.concatenate([row.row if isinstance(row, Drawn) else row for row in rows])
    places = [one.place for one in drawn]
    return (
        drawn[0].shaped if places == list(range(len(drawn[0].shaped))) else drawn[0].shaped[mx.array(places)]
    )


def _line_of(text: Tokens) -> mx.array | None:
    """Return a single text, (1, tokens); None if a token of it is known and stands behind one that is not, or if
    there is no token.
    """
    drawn = [token for token in text if isinstance(token, Drawn)]
    known = [token for token in text if not isinstance(token, Drawn)]
    if not text or (drawn and known != list(text[: len(known)])):
        return None
    pieces = [one.alone for one in drawn]
    if known:
        pieces.insert(0, mx.array(known, mx.uint32))
    return (mx.concatenate(pieces) if len(pieces) > 1 else pieces[0])[None]


def lines_of(texts: Sequence[Tokens], width: int) -> mx.array:
    """Return tokens of several sequences as one array, (sequences, width), padded with 0. Nothing is waited for."""
    if len(texts) == 1 and len(texts[0]) == width and (single := _line_of(texts[0])) is not None:
        return single
    starts: dict[Fetched, int] = {}  # of each source in all of them, one behind the other
    total, known, places = 0, [0], []
    for text in texts:
        line = []
        for token in text:
            if isinstance(token, Drawn):
                if token.tokens not in starts:
                    starts[token.tokens], total = total, total + token.tokens.array.size
                line.append(starts[token.tokens] + token.place)
            else:
                line.append(~len(known))  # behind all sources, once they are counted
                known.append(token)
        places.append(line + [~0] * (width - len(line)))
    if not starts:
        return mx.array([[known[~place] for place in line] for line in places], mx.uint32)
    pool = [source.array.astype(mx.uint32) for source in starts]
    if len(known) > 1 or min(map(min, places)) < 0:
        pool.append(mx.array(known, mx.uint32))
    index = mx.array([[place if place >= 0 else total + ~place for place in line] for line in places])
    return (mx.concatenate(pool) if len(pool) > 1 else pool[0])[index]
