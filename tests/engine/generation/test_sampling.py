"""The rule that keeps draft tokens, on distributions that are small enough to count."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import make_sampler

from draftd.engine.generation.sampling import (
    DISTRIBUTION_ATTRIBUTE,
    Distribution,
    Greedy,
    verify,
    with_distribution,
)
from tests.engine.chance import chi_square, most_by_chance

DRAWS = 600
LAST = [0.2, 0.2, 0.6]  # of the target model, after the draft

PAIRS = [
    ("alike", [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]),
    ("equal", [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]),
    ("far apart", [0.05, 0.15, 0.8], [0.8, 0.15, 0.05]),
    ("the draft model is sure of what cannot be", [0.0, 0.6, 0.4], [1.0, 0.0, 0.0]),
    ("the target model is sure", [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]),
]


def logits(*rows: Sequence[float]) -> mx.array:
    return mx.log(mx.array(rows))


@functools.cache
def rounds(place: int) -> list[tuple[int, list[int]]]:
    """Return of many rounds with a pair how many draft tokens were kept, and the tokens that came out."""
    _, p, q = PAIRS[place]
    mx.random.seed(7)
    p_rows, q_rows, found = logits(p, LAST), logits(q), []
    for _ in range(DRAWS):
        drafted = mx.random.categorical(q_rows)
        kept, token = verify(p_rows, q_rows, drafted)
        found.append(mx.concatenate([kept[None], drafted.astype(kept.dtype), token[None].astype(kept.dtype)]))
    drawn: Any = mx.stack(found).tolist()
    return [(kept, [*[drafted][:kept], token]) for kept, drafted, token in drawn]


@pytest.mark.parametrize("place", range(len(PAIRS)), ids=[name for name, _, _ in PAIRS])
def test_tokens_are_distributed_as_the_target_models_own(place: int) -> None:
    _, p, _ = PAIRS[place]
    first = [tokens[0] for _, tokens in rounds(place)]
    assert chi_square(first, p) < most_by_chance(sum(share > 0 for share in p) - 1)
    after = [tokens[1] for kept, tokens in rounds(place) if kept == 1]
    assert chi_square(after, LAST) < most_by_chance(len(LAST) - 1)


@pytest.mark.parametrize("place", range(len(PAIRS)), ids=[name for name, _, _ in PAIRS])
def test_as_many_are_kept_as_the_distributions_have_in_common(place: int) -> None:
    _, p, q = PAIRS[place]
    common = sum(map(min, p, q))
    share = sum(kept for kept, _ in rounds(place)) / DRAWS
    assert share == pytest.approx(common, abs=4 * math.sqrt(0.25 / DRAWS))


def test_nothing_is_kept_after_the_first_that_is_not() -> None:
    never, always = [0.0, 1.0], [1.0, 0.0]
    drafted = mx.array([0, 0, 0], mx.uint32)
    q = logits(always, always, always)
    kept, token = verify(logits(always, never, always, always), q, drafted)
    assert (kept.item(), token.item()) == (1, 1)
    kept, token = verify(logits(always, always, always, never), q, drafted)
    assert (kept.item(), token.item()) == (3, 1)


@pytest.mark.parametrize("shaping", [{}, {"top_p": 0.9, "min_p": 0.3, "top_k": 2}])
def test_the_distribution_is_that_of_mlx_lms_sampler(shaping: dict[str, Any]) -> None:
    logprobs = logits([0.4, 0.3, 0.15, 0.1, 0.05])
    sampler = with_distribution(make_sampler)(0.7, **shaping)
    shares: Any = mx.softmax(getattr(sampler, DISTRIBUTION_ATTRIBUTE).logits(logprobs)[0]).tolist()
    mx.random.seed(3)
    drawn: Any = sampler(mx.broadcast_to(logprobs, (20 * DRAWS, 5))).tolist()
    assert chi_square(drawn, shares) < most_by_chance(sum(share > 0 for share in shares) - 1)


@pytest.mark.parametrize(("shaping", "left"), [({"top_p": 0.9}, 4), ({"min_p": 0.3}, 3), ({"top_k": 2}, 2)])
def test_what_is_filtered_out_cannot_be_drawn(shaping: dict[str, Any], left: int) -> None:
    shares = mx.softmax(Distribution(0.7, **shaping).logits(logits([0.4, 0.3, 0.15, 0.1, 0.05])))
    assert (shares > 0).sum().item() == left


def distribution(temp: float, **others: Any) -> Distribution | Greedy | None:
    return getattr(with_distribution(make_sampler)(temp, **others), DISTRIBUTION_ATTRIBUTE, None)


def test_a_sampler_says_what_it_draws_from_where_nothing_else_shapes_it() -> None:
    assert distribution(0.7, top_p=0.9, min_p=0.1, top_k=5) == Distribution(0.7, 0.9, 0.1, 5)
    assert distribution(0.7, xtc_probability=0.0, xtc_threshold=0.1) == Distribution(0.7)
    assert distribution(0.0, top_p=0.9) == Greedy()
    assert distribution(0.7, xtc_probability=0.5) is None
    assert distribution(0.7, min_tokens_to_keep=2) is None
