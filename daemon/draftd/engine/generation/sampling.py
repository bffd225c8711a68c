"""How tokens are chosen, and which draft tokens are kept.

Let p be the target model's distribution at a position, after penalties, top-p, min-p, XTC, top-k and temperature,
as the request asks, and q the same of whatever proposed a token. What comes out is distributed as p, whatever q
is: drafts decide about speed only. There are three rules.

`Greedy` (temperature 0): the likeliest token is taken; a draft token is kept if it is that one.

`Speculative`, the rule of Leviathan et al., arXiv 2211.17192: a draft token x is kept with probability min(1,
p(x)/q(x)). At the first one that is not kept, the token is drawn from max(0, p - q), normalised, instead; if all
are kept, one more comes from p. A lookup draws nothing: its q is 1 for its token.

`Seeded`: a request with a seed gets the same text again, however it was drafted. At each position the same noise,
made from the seed and the position, is added to log p, and the largest sum is taken, which is a draw from p (the
Gumbel-max trick). A draft token is kept if it is that one; the draft model draws with the same noise, so
the two agree nearly as often as by the paper's rule.

Positions are rows: the shapes of logits end with (rows, vocabulary), and `tokens` and `kept` are integers. Where a
rule `is_shared`, it is given rows of several requests side by side; any other those of one request at a time.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from draftd.engine.generation.rows import Rows, Tokens, lines_of
from draftd.protocol import PAPER_RULE, PLAIN_RULE

Processor = Callable[[mx.array, mx.array], mx.array]


class Rule(Protocol):
    """A way to choose tokens. Positions count the tokens of an answer; that of the first row is given.

    `weighs_drafts`: whether a drafted token is kept depends on what it was drawn from.
    """

    name: ClassVar[str]
    weighs_drafts: ClassVar[bool]

    @property
    def is_shared(self) -> bool:
        """Whether neither the position nor the request matters: equal rules choose for several in one go."""

    def shape(self, logits: mx.array, position: int) -> mx.array:
        """Return the logits of the distributions that tokens are drawn from."""

    def draw(self, rows: mx.array, position: int) -> mx.array:
        """Draw a token from each row of shaped logits; (rows,)."""

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, counts: mx.array
    ) -> tuple[mx.array, mx.array]:
        """Return of each draft how many tokens are kept, and the token after them; (drafts,).

        The `drafted` tokens, (drafts, n), are as many of each draft as `counts` says, (drafts,), 1 at least. `p`,
        (drafts, n + 1, vocabulary), is shaped, and so is `q`, (drafts, n, vocabulary), which the tokens were drawn
        from; None for tokens that were not drawn.
        """

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        """Return how likely drafts from the rows `q` were to be kept in the places of `tokens`, drawn from `p`."""


class Likeliest:
    """The likeliest token of what was shaped is taken, and a draft token kept if it is that one."""

    __slots__ = ()
    name: ClassVar = PLAIN_RULE
    weighs_drafts: ClassVar = False

    def draw(self, rows: mx.array, position: int) -> mx.array:
        return mx.argmax(rows, axis=-1)

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, counts: mx.array
    ) -> tuple[mx.array, mx.array]:
        chosen = mx.argmax(p, axis=-1)
        kept = _agreeing(chosen[:, :-1] == drafted, counts)
        return kept, _at(chosen, kept)

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        return mx.argmax(q, axis=-1) == tokens


@dataclass(frozen=True, slots=True)
class Greedy(Likeliest):
    """No chance."""

    is_shared: ClassVar = True

    def shape(self, logits: mx.array, position: int) -> mx.array:
        return logits


@dataclass(frozen=True, slots=True)
class Shape:
    """What shapes a distribution; 0 switches any but the temperature off. `coins` seeds what XTC tosses."""

    temperature: float
    top_p: float = 0.0
    min_p: float = 0.0
    top_k: int = 0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    xtc_special_tokens: tuple[int, ...] = ()
    coins: int = field(default=0, compare=False)

    def __call__(self, logits: mx.array, position: int) -> mx.array:
        """Shape rows of a model's logits, in the order of mlx_lm's sampler."""
        if 0 < self.top_p < 1:
            # It takes exponentials of what is normalised elsewhere; the largest being 0 is enough for it.
            logits = apply_top_p(logits - logits.max(axis=-1, keepdims=True), self.top_p)
        if self.min_p:
            logits = apply_min_p(logits, self.min_p)
        if self.xtc_probability:
            logits = self._without_top_choices(logits, position)
        if 0 < self.top_k < logits.shape[-1]:
            logits = apply_top_k(logits, self.top_k)
        return logits.astype(mx.float32) * (1 / self.temperature)

    def _without_top_choices(self, logits: mx.array, position: int) -> mx.array:
        """XTC, with a coin for each position: the same one for a draft and for its verification."""
        probabilities = mx.softmax(logits.astype(mx.float32), axis=-1)
        likely = mx.where(probabilities > self.xtc_threshold, probabilities, mx.inf)
        excluded = probabilities > likely.min(axis=-1, keepdims=True)
        if self.xtc_special_tokens:
            excluded[..., list(self.xtc_special_tokens)] = False
        places = range(position, position + logits.shape[-2])
        coins = mx.stack([mx.random.uniform(key=_key(self.coins, place)) for place in places])
        return mx.where(excluded & (coins[:, None] <= self.xtc_probability), -mx.inf, logits)


@dataclass(frozen=True, slots=True)
class Speculative:
    """The paper's rule. Chance comes from `mx.random`."""

    name: ClassVar = PAPER_RULE
    weighs_drafts: ClassVar = True
    shaping: Shape

    @property
    def is_shared(self) -> bool:
        return not self.shaping.xtc_probability  # its coins are of a request and a position

    def shape(self, logits: mx.array, position: int) -> mx.array:
        return self.shaping(logits, position)

    def draw(self, rows: mx.array, position: int) -> mx.array:
        return mx.random.categorical(rows)

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, counts: mx.array
    ) -> tuple[mx.array, mx.array]:
        p, q = mx.softmax(p, axis=-1), None if q is None else mx.softmax(q, axis=-1)
        tokens = drafted[..., None]
        chances = mx.take_along_axis(p[:, :-1], tokens, axis=-1)[..., 0]
        drawn = 1.0 if q is None else mx.take_along_axis(q, tokens, axis=-1)[..., 0]
        kept = _agreeing(mx.random.uniform(shape=drafted.shape) * drawn < chances, counts)
        place = mx.minimum(kept, drafted.shape[1] - 1)
        refused = (
            _at(drafted, place)[:, None] == mx.arange(p.shape[-1])
            if q is None
            else mx.take_along_axis(q, place[:, None, None], axis=1)[:, 0]
        )
        row = mx.take_along_axis(p, kept[:, None, None], axis=1)[:, 0]
        # Nothing was refused, if all are kept.
        return kept, mx.random.categorical(mx.log(_after(row, refused * (kept < counts)[:, None])))

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        # The mean of min(1, q/p) over tokens drawn from p is the sum of min(p, q), which is that likelihood.
        return mx.minimum(1, _probability(q, tokens) / _probability(p, tokens))


@dataclass(frozen=True, slots=True)
class Seeded(Likeliest):
    """The same noise for the same seed and position."""

    is_shared: ClassVar = False
    shaping: Shape
    seed: int

    def shape(self, logits: mx.array, position: int) -> mx.array:
        places = range(position, position + logits.shape[-2])
        noise = [mx.random.gumbel(logits.shape[-1:], key=_key(self.seed, place)) for place in places]
        return self.shaping(logits, position) + mx.stack(noise)


def _agreeing(keep: mx.array, counts: mx.array) -> mx.array:
    """Return how many of each draft are to be kept, up to the first that is not."""
    own = mx.arange(keep.shape[1]) < counts[:, None]
    return mx.cumprod((keep & own).astype(mx.int32), axis=1).sum(axis=1)


def _at(tokens: mx.array, places: mx.array) -> mx.array:
    """Return one token of each draft."""
    return mx.take_along_axis(tokens, places[:, None], axis=1)[:, 0]


def _after(row: mx.array, refused: mx.array) -> mx.array:
    """Return the probabilities of the token after the kept ones, not normalised."""
    rest = mx.maximum(row - refused, 0)
    # Where p and q are equal but for rounding, nothing may be left over: then p is as good.
    return mx.where(rest.sum(axis=-1, keepdims=True) > 0, rest, row)


def _probability(rows: mx.array, tokens: mx.array) -> mx.array:
    rows = rows.astype(mx.float32)
    place = mx.take_along_axis(rows, tokens[:, None], axis=-1)
    return mx.exp(place - mx.logsumexp(rows, axis=-1, keepdims=True))[:, 0]


def _key(seed: int, position: int) -> mx.array:
    """Return the key of mlx's generator for one position: those of neighbouring seeds have nothing in common."""
    digest = hashlib.blake2b(b"%d %d" % (seed, position), digest_size=8).digest()
    return mx.array([int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")], mx.uint32)


@dataclass(frozen=True, slots=True)
class Logits:
    """From a model's rows to those of the request: as long as the target's vocabulary, with bias and penalties.

    `context` is how many tokens before a position the processors look at.
    """

    vocabulary: int
    processors: Sequence[Processor] = ()
    context: int = 0

    def __call__(self, rows: Rows, text: Sequence[int], after: Tokens = ()) -> Rows:
        """Return rows of which the first comes after `text`, and each further one after one more of `after`.

        Where `after` has more tokens, the first row comes after those that are left over.
        """
        seen = rows.seen_as(self.vocabulary)
        if not self.processors:
            return seen
        array, more = seen.array, len(after) + 1 - rows.count
        processed = (
            self._processed(array[place : place + 1], text, after[: more + place])
            for place in range(rows.count)
        )
        return seen.replaced(mx.concatenate(list(processed)))

    def _processed(self, row: mx.array, text: Sequence[int], after: Tokens) -> mx.array:
        tokens = [*(text[-self.context :] if self.context else []), *after]
        before = lines_of([tokens], len(tokens))[0] if tokens else mx.array([], mx.uint32)
        for processor in self.processors:
            row = processor(before, row)
        return row
