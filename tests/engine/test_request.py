"""What a request asks for, in the terms of the loop."""

from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine import request_context
from draftd.engine.generation.sampling import Greedy, Seeded, Speculative
from draftd.engine.request import rule_of, wants_our_loop, way_of
from draftd.protocol import LOOKUP_DRAFTER


def arguments(temperature: float = 0.0, seed: int | None = None, **others: Any) -> Any:
    sampling = {"top_p": 1.0, "min_p": 0.0, "top_k": 0, "xtc_probability": 0.0, "xtc_threshold": 0.1} | {
        name: value for name, value in others.items() if not name.endswith("penalty")
    }
    penalties = {"repetition_penalty": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0} | {
        name: value for name, value in others.items() if name.endswith("penalty")
    }
    return SimpleNamespace(
        sampling=SimpleNamespace(temperature=temperature, **sampling),
        logits=SimpleNamespace(**penalties),
        seed=seed,
    )


def test_the_rule_follows_from_temperature_and_seed() -> None:
    assert rule_of(arguments(seed=3), ()) == Greedy()
    seeded = rule_of(arguments(0.7, seed=3, top_k=5), (1, 2))
    assert isinstance(seeded, Seeded)
    assert (seeded.seed, seeded.shaping.coins, seeded.shaping.top_k) == (3, 3, 5)
    assert seeded.shaping.xtc_special_tokens == (1, 2)
    drawn = [rule_of(arguments(0.7, top_p=0.9, min_p=None), ()) for _ in range(2)]
    speculative = [rule for rule in drawn if isinstance(rule, Speculative)]
    assert [rule.shaping.temperature for rule in speculative] == [0.7, 0.7]
    assert len({rule.shaping.coins for rule in speculative}) == 2, "each request tosses coins of its own"


def test_requests_are_alike_where_their_drafts_are_kept_as_often() -> None:
    assert way_of(arguments(top_p=0.5)) == way_of(arguments(top_p=0.9, seed=4)), "greedy looks at none of it"
    ways = [
        arguments(),
        arguments(0.5),
        arguments(0.7),
        arguments(0.7, seed=1),
        arguments(0.7, top_p=0.5),
        arguments(0.7, min_p=0.5),
        arguments(0.7, top_k=5),
        arguments(0.7, xtc_probability=0.5),
        arguments(repetition_penalty=1.1),
        arguments(presence_penalty=1.1),
        arguments(frequency_penalty=1.1),
    ]
    assert len({way_of(one) for one in ways}) == len(ways)
    assert way_of(arguments(0.7, seed=1)) == way_of(arguments(0.7, seed=2))


@pytest.mark.parametrize(
    ("drafters", "wants"), [(None, False), (frozenset(), False), (frozenset({LOOKUP_DRAFTER}), True)]
)
def test_a_request_that_names_a_drafter_is_not_batched(drafters: frozenset[str] | None, wants: bool) -> None:
    asked = arguments()
    setattr(asked, request_context.CONTEXT_ATTRIBUTE, request_context.RequestContext(drafters=drafters))
    assert wants_our_loop(asked) is wants
