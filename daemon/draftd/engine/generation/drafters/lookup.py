"""Drafts without a model: what followed the same words the last time. Pure.

Theory of operation. An index knows where each run of ORDER tokens stood. The last ORDER tokens of the text are
looked up in it; of the places found, the one whose words before it agree the furthest with the text is taken, the
latest of those that agree as far; what follows there is the draft. How far the words agree, the *match*, tells how
much the draft is worth: the policy keeps an account for each class of matches.

Where a text is copied, the copy goes on where it was. That place is looked at first: a text that repeats itself has
more places alike than are compared.

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
_END = -1  # stands where a text ends and another begins


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
        if _END in drafted:
            drafted = drafted[: drafted.index(_END)]
        period = len(drafted)
        while drafted and len(drafted) < limit:
            drafted.append(drafted[len(drafted) - period])
        return drafted


class Index:
    """Where runs of tokens stood in some texts. The last one grows at its end, the first ones can be forgotten.

    A position counts from the first token that there ever was. Of each run the latest one is known, and from each
    position the one before it: two numbers a token, where a list for each run would take four times the memory.
    """

    def __init__(self) -> None:
        self.text: list[int] = []
        self._latest: dict[tuple[int, ...], int] = {}
        self._earlier: list[
            int
        ] = []  # for each token of `text`, where the run before it stood before; -1 for nowhere
        self._forgotten = 0  # tokens
        self._begin = 0  # of the last text

    def __len__(self) -> int:
        """How many runs it knows."""
        return len(self._latest)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens to the last text."""
        # The run that ends the text is entered only when a token follows it: it has no continuation before that.
        first = max(self._begin + ORDER, self._end)
        self.text += tokens
        self._earlier += [-1] * len(tokens)
        place = first - self._forgotten
        count = max(0, len(self.text) - place)
        starts = range(place - ORDER, place)
        runs = zip(*(self.text[start : start + count] for start in starts), strict=True)
        for end, run in enumerate(runs, first):
            self._earlier[end - self._forgotten] = self._latest.get(run, -1)
            self._latest[run] = end

    def begin_text(self) -> None:
        """Let what comes next be another text."""
        self.text.append(_END)
        self._earlier.append(-1)
        self._begin = self._end

    def forget(self, count: int) -> None:
        """Forget the first `count` tokens."""
        for place in range(ORDER, count):
            run = tuple(self.text[place - ORDER : place])
            if self._latest.get(run) == place + self._forgotten:
                del self._latest[run]
        del self.text[:count], self._earlier[:count]
        self._forgotten += count

    def find(self, text: Sequence[int], expected: int | None = None) -> Match | None:
        """Return the best place for what ends `text`; None if its last ORDER tokens never stood here before.

        `expected` is a place in the index's own text that is looked at first, and taken if no other agrees further.
        """
        best, run = None, tuple(text[-ORDER:])
        if expected is not None and tuple(self.text[expected - ORDER : expected]) == run:
            best = Match(self.text, expected, _agreement(self.text, expected, text))
        end = self._latest.get(run, -1)
        for _ in range(MAX_PLACES):
            if (start := end - self._forgotten) < 0 or (best and best.length == MAX_MATCH):
                break
            length = _agreement(self.text, start, text)
            if best is None or length > best.length:
                best = Match(self.text, start, length)
            end = self._earlier[start]
        return best

    @property
    def _end(self) -> int:
        return self._forgotten + len(self.text)


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
        self._sizes: deque[int] = deque()  # of each answer in the index, with what stands behind it

    def __len__(self) -> int:
        """How many tokens are kept."""
        return len(self._index.text)

    def add(self, answer: Sequence[int]) -> None:
        """Keep an answer, in the place of the oldest ones if need be."""
        if len(answer) <= ORDER:
            return  # nothing follows any run in it
        before = len(self)
        self._index.extend(answer[1 - MAX_STORED :])
        self._index.begin_text()
        self._sizes.append(len(self) - before)
        while len(self) > MAX_STORED:
            self._index.forget(self._sizes.popleft())

    def find(self, text: Sequence[int]) -> Match | None:
        """Return the best place in all answers for what ends `text`."""
        return self._index.find(text)


class LookupDrafter:
    """Finds drafts for one text, in itself and in past answers."""

    def __init__(self, prompt: Sequence[int], store: AnswerStore) -> None:
        self._index = Index()
        self._index.extend(prompt)
        self._prompt_length = len(prompt)
        self._store = store
        self._goes_on: int | None = None  # where the place that was found last has got to since

    def extend(self, tokens: Sequence[int]) -> None:
        """Append what was generated."""
        self._index.extend(tokens)
        if self._goes_on is not None:
            self._goes_on += len(tokens)

    def find(self) -> Match | None:
        """Return where the end of the text stood before: in itself, unless a past answer agrees further."""
        text = self._index.text
        own, other = self._index.find(text, self._goes_on), self._store.find(text)
        if own:
            self._goes_on = own.start
        return max((match for match in (own, other) if match), key=lambda match: match.length, default=None)

    def close(self) -> None:
        """Keep the answer for later requests."""
        self._store.add(self._index.text[self._prompt_length :])
