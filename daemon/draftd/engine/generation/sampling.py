"""Speculative sampling: the distributions, and the rule that keeps draft tokens.

The rule is that of Leviathan et al., arXiv 2211.17192. Let p be the target model's distribution at a position
and q the draft model's, both after top-p, min-p, top-k and temperature, as the request asks. A draft token x,
drawn from q, is kept with probability min(1, p(x)/q(x)). In place of the first one that is not kept, a token is
drawn from max(0, p - q), normalised; if all are kept, one more comes from p. What comes out is distributed as p,
whatever q is: the draft model decides about speed only. mlx_lm's own rule keeps a draft token if it equals a token
drawn from p. That is right as well, but keeps x with probability p(x) only, which is less the flatter p is.

The paper's rule needs the distributions that tokens are drawn from. They are known where nothing but temperature,
top_p, min_p and top_k shapes them: there the samplers that mlx_lm makes say what they draw from, see
`with_distribution`.

Positions are rows. The functions work on mlx arrays and keep no state; chance comes from `mx.random`, so that the
same seed gives the same tokens.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from draftd.protocol import PAPER_RULE, PLAIN_RULE

Sampler = Callable[[mx.array], mx.array]
DISTRIBUTION_ATTRIBUTE = "distribution"  # of a sampler


@dataclass(frozen=True, slots=True)
class Distribution:
    """What shapes the distribution that tokens are drawn from. 0 switches each but the temperature off."""

    rule: ClassVar[str] = PAPER_RULE
    temperature: float
    top_p: float = 0.0
    min_p: float = 0.0
    top_k: int = 0

    def logits(self, logits: mx.array) -> mx.array:
        """Shape rows of a model's logits, in the order of mlx_lm's sampler."""
        if 0 < self.top_p < 1:
            # It takes exponentials of what is normalised elsewhere; the largest being 0 is enough for it.
            logits = apply_top_p(logits - logits.max(axis=-1, keepdims=True), self.top_p)
        if self.min_p:
            logits = apply_min_p(logits, self.min_p)
        if self.top_k > 0:
            logits = apply_top_k(logits, self.top_k)
        return logits.astype(mx.float32) * (1 / self.temperature)

    def draw(self, row: mx.array) -> mx.array:
        """Draw a token for each row of shaped logits."""
        return mx.random.categorical(row)

    def verify(self, p: mx.array, q: mx.array, drafted: mx.array) -> tuple[mx.array, mx.array]:
        """Verify by the paper's rule, see the function `verify`."""
        return verify(p, q, drafted)

    def would_keep(self, p: mx.array, q: mx.array, tokens: mx.array) -> mx.array:
        """Return how likely a draft from `q` would have been kept in place of each of `tokens`, drawn from `p`.

        The mean of min(1, q/p) over tokens drawn from p is the sum of min(p, q), and that is this likelihood.
        """
        return mx.minimum(1, probability(q, tokens) / probability(p, tokens))


@dataclass(frozen=True, slots=True)
class Greedy:
    """No chance at all: the likeliest token is taken, and a draft token is kept if it is that one."""

    rule: ClassVar[str] = PLAIN_RULE

    def logits(self, logits: mx.array) -> mx.array:
        """Return rows of logits as they are."""
        return logits

    def draw(self, row: mx.array) -> mx.array:
        """Return the likeliest token of each row."""
        return mx.argmax(row, axis=-1)

    def verify(self, p: mx.array, q: mx.array, drafted: mx.array) -> tuple[mx.array, mx.array]:
        """Return how many of the drafted tokens are kept, and the token that comes after them."""
        best = self.draw(p)
        kept = mx.cumprod((best[:-1] == drafted).astype(mx.int32)).sum()
        return kept, best[kept]

    def would_keep(self, p: mx.array, q: mx.array, tokens: mx.array) -> mx.array:
        """Return 1 where a draft would have been kept in place of a token, else 0."""
        return self.draw(q) == tokens


def probability(rows: mx.array, tokens: mx.array) -> mx.array:
    """Return how likely each token is by its row of shaped logits."""
    rows = rows.astype(mx.float32)
    place = mx.take_along_axis(rows, tokens[:, None], axis=-1)
    return mx.exp(place - mx.logsumexp(rows, axis=-1, keepdims=True))[:, 0]


def verify(p: mx.array, q: mx.array, drafted: mx.array) -> tuple[mx.array, mx.array]:
    """Return how many of the n drafted tokens are kept, and the token that comes after them.

    `p` has n + 1 rows of logits, `q` has the n that the drafted tokens were drawn from; n is at least 1.
    """
    p, q = mx.softmax(p, axis=-1), mx.softmax(q, axis=-1)
    place = drafted[:, None]
    p_drafted, q_drafted = (mx.take_along_axis(rows, place, axis=-1)[:, 0] for rows in (p[:-1], q))
    keep = mx.random.uniform(shape=drafted.shape) * q_drafted < p_drafted
    kept = mx.cumprod(keep.astype(mx.int32)).sum()
    return kept, mx.random.categorical(mx.log(_after(kept, p, q)))


def _after(kept: mx.array, p: mx.array, q: mx.array) -> mx.array:
    """Return the probabilities of the token after the kept ones, not normalised."""
    row = p[kept]
    refused = q[mx.minimum(kept, len(q) - 1)] * (kept < len(q))  # nothing was refused if all are kept
    rest = mx.maximum(row - refused, 0)
    # Where p and q are equal but for rounding, nothing may be left over; then p does as well.
    return mx.where(rest.sum() > 0, rest, row)


def with_distribution(make_sampler: Callable[..., Sampler]) -> Callable[..., Sampler]:
    """Wrap mlx_lm's `make_sampler`: a sampler says what it draws from, unless something unknown to us shapes
    that.
    """
    signature = inspect.signature(make_sampler)

    @functools.wraps(make_sampler)
    def made(*args: Any, **kwargs: Any) -> Sampler:
        sampler = make_sampler(*args, **kwargs)
        distribution = _distribution(signature.bind(*args, **kwargs).arguments)
        if distribution is not None:
            setattr(sampler, DISTRIBUTION_ATTRIBUTE, distribution)
        return sampler

    return made


_SHAPING = ("temp", "top_p", "min_p", "top_k")
_XTC = ("xtc_probability", "xtc_threshold", "xtc_special_tokens")


def _distribution(arguments: Mapping[str, Any]) -> Distribution | Greedy | None:
    """None where something else could shape what is drawn from."""
    if not arguments.get("temp"):
        return Greedy()
    if arguments.get("xtc_probability"):
        return None
    if not arguments.keys() <= {*_SHAPING, *_XTC}:
        return None
    temperature, *others = (arguments.get(name) or 0 for name in _SHAPING)
    return Distribution(temperature, *others)
