"""Drafts without a model: what followed the same words the last time. Pure.

Theory of operation. An index knows where each run of ORDER tokens stood. The last ORDER tokens of the text are
looked up in it; of the places found, the one whose words before it agree the furthest with the text is taken, the
latest of those that agree as far; what follows there is the draft. How far the words agree, the *match*, tells how
much the draft is worth: the policy keeps an account for each class of matches.

A suffix automaton finds the same places (it knows the longest match of all, the index the longest of the last few).
It takes some four times as long to build, and a dictionary for each token; see docs/speculation.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

ORDER = 3  # tokens that have to agree
MAX_PLACES = 8  # of one run of tokens that are compared, latest first
MAX_MATCH = 64  # tokens that are compared at a place
MAX_STORED = 100_000  # tokens of past answers that are kept for one profile


@dataclass(frozen=True, slots=True)
class Match:
    """A place where the last `length` tokens stood before, in `source`, which goes on from `start`."""

    source: Sequence[int]
    start: int
    length: int

    def draft(self, limit: int) -> list[int]:
        """Return up to `limit` tokens that followed there.

        A draft that reaches the end of its source goes on with itself: text that repeats itself is proposed to go
        on repeating itself.
        """
        drafted = list(self.source[self.start : self.start + limit])
        period = len(drafted)
        while drafted and len(drafted) < limit:
            drafted.append(drafted[len(drafted) - period])
        return drafted


class Index:
    """Where runs of tokens stood in some texts, each of which may grow at its end."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], deque[tuple[list[int], int]]] = {}

    def extend(self, text: list[int], tokens: Sequence[int]) -> None:
        """Append tokens to one of the texts; an empty one is new."""
        # The run that ends the text is entered only when a token follows it: it has no continuation before that.
        first = max(ORDER, len(text))
        text += tokens
        for end in range(first, len(text)):
            run = tuple(text[end - ORDER : end])
            places = self._places.get(run)
            if places is None:
                places = self._places[run] = deque(maxlen=MAX_PLACES)
            places.append((text, end))

    def remove(self, text: list[int]) -> None:
        """Forget the oldest of the texts."""
        for end in range(ORDER, len(text)):
            run = tuple(text[end - ORDER : end])
            places = self._places.get(run)
            if places is not None and places[0][0] is text:
                places.popleft()
                if not places:
                    del self._places[run]

    def find(self, text: Sequence[int]) -> Match | None:
        """Return the best place for what ends `text`; None if its last ORDER tokens never stood here before."""
        best = None
        for source, start in reversed(self._places.get(tuple(text[-ORDER:]), ())):
            length = _agreement(source, start, text)
            if best is None or length > best.length:
                best = Match(source, start, length)
        return best


def _agreement(source: Sequence[int], end: int, text: Sequence[int]) -> int:
    """Return how many tokens before `end` are those that end `text`, MAX_MATCH at most."""
    limit = min(end, len(text), MAX_MATCH)
    length = ORDER
    while length < limit and source[end - 1 - length] == text[-1 - length]:
        length += 1
    return length


class AnswerStore:
    """The last answers of one profile, MAX_STORED tokens of them at most."""

    def __init__(self) -> None:
        self._index = Index()
        self._answers: deque[list[int]] = deque()
        self._size = 0

    def add(self, answer: Sequence[int]) -> None:
        """Keep an answer, in the place of the oldest ones if need be."""
        kept: list[int] = []
        self._index.extend(kept, answer[-MAX_STORED:])
        self._answers.append(kept)
        self._size += len(kept)
        while self._size > MAX_STORED:
            oldest = self._answers.popleft()
            self._index.remove(oldest)
            self._size -= len(oldest)

    def find(self, text: Sequence[int]) -> Match | None:
        """Return the best place in all answers for what ends `text`."""
        return self._index.find(text)


class LookupDrafter:
    """Finds drafts for one text, in itself and in past answers."""

    def __init__(self, prompt: Sequence[int], store: AnswerStore) -> None:
        self._text: list[int] = []
        self._index = Index()
        self._index.extend(self._text, prompt)
        self._prompt_length = len(prompt)
        self._store = store

    def extend(self, tokens: Sequence[int]) -> None:
        """Append what was generated."""
        self._index.extend(self._text, tokens)

    def find(self) -> Match | None:
        """Return where the end of the text stood before: in the text, unless a past answer agrees further."""
        found = [match for index in (self._index, self._store) if (match := index.find(self._text))]
        return max(found, key=lambda match: match.length, default=None)

    def close(self) -> None:
        """Keep the answer for later requests."""
        self._store.add(self._text[self._prompt_length :])
