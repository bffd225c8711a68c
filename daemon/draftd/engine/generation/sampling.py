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

Positions are rows: `logits` is (rows, vocabulary), `tokens` and `kept` are integers.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from draftd.protocol import PAPER_RULE, PLAIN_RULE

Processor = Callable[[mx.array, mx.array], mx.array]


class Rule(Protocol):
    """A way to choose tokens. Positions count the tokens of an answer; that of the first row is given."""

    name: ClassVar[str]

    def shape(self, logits: mx.array, position: int) -> mx.array:
        """Return the logits of the distributions that tokens are drawn from."""

    def draw(self, row: mx.array, position: int) -> mx.array:
        """Draw one token, (1,), from one row of shaped logits."""

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, position: int
    ) -> tuple[mx.array, mx.array]:
        """Return how many of the n drafted tokens are kept, and the token after them.

        `p` has n + 1 rows, `q` the n that the tokens were drawn from; None for tokens that were not drawn. n is at
        least 1.
        """

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        """Return how likely drafts from the rows `q` were to be kept in the places of `tokens`, drawn from `p`."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """No chance."""

    name: ClassVar = PLAIN_RULE

    def shape(self, logits: mx.array, position: int) -> mx.array:
        return logits

    def draw(self, row: mx.array, position: int) -> mx.array:
        return mx.argmax(row, axis=-1)

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, position: int
    ) -> tuple[mx.array, mx.array]:
        return _equal_to(mx.argmax(p, axis=-1), drafted)

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        return mx.argmax(q, axis=-1) == tokens


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
    coins: int = 0

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
        coins = mx.stack(
            [mx.random.uniform(key=_key(self.coins, position + row)) for row in range(len(logits))]
        )
        return mx.where(excluded & (coins[:, None] <= self.xtc_probability), -mx.inf, logits)


@dataclass(frozen=True, slots=True)
class Speculative:
    """The paper's rule. Chance comes from `mx.random`."""

    name: ClassVar = PAPER_RULE
    shaping: Shape

    def shape(self, logits: mx.array, position: int) -> mx.array:
        return self.shaping(logits, position)

    def draw(self, row: mx.array, position: int) -> mx.array:
        return mx.random.categorical(row)

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, position: int
    ) -> tuple[mx.array, mx.array]:
        p = mx.softmax(p, axis=-1)
        q = (
            (mx.arange(p.shape[-1]) == drafted[:, None]).astype(p.dtype)
            if q is None
            else mx.softmax(q, axis=-1)
        )
        p_drafted, q_drafted = (
            mx.take_along_axis(rows, drafted[:, None], axis=-1)[:, 0] for rows in (p[:-1], q)
        )
        keep = mx.random.uniform(shape=drafted.shape) * q_drafted < p_drafted
        kept = mx.cumprod(keep.astype(mx.int32)).sum()
        return kept, mx.random.categorical(mx.log(_after(kept, p, q)))

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        # The mean of min(1, q/p) over tokens drawn from p is the sum of min(p, q), which is that likelihood.
        return mx.minimum(1, _probability(q, tokens) / _probability(p, tokens))


@dataclass(frozen=True, slots=True)
class Seeded:
    """The same noise for the same seed and position."""

    name: ClassVar = PLAIN_RULE
    shaping: Shape
    seed: int

    def shape(self, logits: mx.array, position: int) -> mx.array:
        noise = [
            mx.random.gumbel(logits.shape[1:], key=_key(self.seed, position + row))
            for row in range(len(logits))
        ]
        return self.shaping(logits, position) + mx.stack(noise)

    def draw(self, row: mx.array, position: int) -> mx.array:
        return mx.argmax(row, axis=-1)

    def verify(
        self, p: mx.array, q: mx.array | None, drafted: mx.array, position: int
    ) -> tuple[mx.array, mx.array]:
        return _equal_to(mx.argmax(p, axis=-1), drafted)

    def agreement(self, p: mx.array, q: mx.array, tokens: mx.array, position: int) -> mx.array:
        return mx.argmax(q, axis=-1) == tokens


def _equal_to(chosen: mx.array, drafted: mx.array) -> tuple[mx.array, mx.array]:
    kept = mx.cumprod((chosen[:-1] == drafted).astype(mx.int32)).sum()
    return kept, chosen[kept]


def _after(kept: mx.array, p: mx.array, q: mx.array) -> mx.array:
    """Return the probabilities of the token after the kept ones, not normalised."""
    row = p[kept]
    refused = q[mx.minimum(kept, len(q) - 1)] * (kept < len(q))  # nothing was, if all are kept
    rest = mx.maximum(row - refused, 0)
    # Where p and q are equal but for rounding, nothing may be left over: then p is as good.
    return mx.where(rest.sum() > 0, rest, row)


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

    def __call__(self, rows: mx.array, text: Sequence[int], drafted: Sequence[mx.array] = ()) -> mx.array:
        """Return rows of which the first comes after `text`, and each further one after one more of `drafted`."""
        if not self.processors:
            return self._fitted(rows)
        row_by_row = (self.last(rows[place : place + 1], text, drafted[:place]) for place in range(len(rows)))
        return mx.concatenate(list(row_by_row))

    def last(self, row: mx.array, text: Sequence[int], drafted: Sequence[mx.array]) -> mx.array:
        """Return the row that comes after `text` and all of `drafted`."""
        row = self._fitted(row)
        if self.processors:
            tokens = mx.array(list(text[-self.context :]) if self.context else [], mx.uint32)
            before = mx.concatenate([tokens, *drafted])
            for processor in self.processors:
                row = processor(before, row)
        return row

    def _fitted(self, rows: mx.array) -> mx.array:
        """Models of one family pad their vocabularies differently: no token is proposed that the target lacks."""
        missing = self.vocabulary - rows.shape[-1]
        if missing > 0:
            return mx.pad(rows, [(0, 0), (0, missing)], constant_values=-mx.inf)
        return rows[:, : self.vocabulary] if missing else rows
