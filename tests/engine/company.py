"""What the tests of several requests at work share: tiny models, prompts, and what each text is alone."""

from functools import cache
from typing import Any

from mlx_lm import server

from draftd.engine.generation.sampling import Greedy
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import VOCABULARY, Asked, Generator

QUANTIZED = "quantized"
"""Plain layers that are quantized from the 30th token of a text on. What they have read of one text does not serve
another one: its tokens would see numbers that are quantized where they see others alone.
"""
PLAIN_SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


@cache
def pair(name: str) -> tuple[Any, Any]:
    if name == QUANTIZED:
        return make("qwen2", **PLAIN_SIZES), noisy("qwen2", **PLAIN_SIZES)
    return make(name), noisy(name)


def generator_for(name: str, step: int = 512) -> Generator:
    if name != QUANTIZED:
        return Generator(*pair(name), step)
    made = Generator(
        *pair(name)
    )  # layers are quantized after a whole step, so the text depends on its length
    made.cli_args.kv_bits, made.cli_args.kv_group_size, made.cli_args.quantized_kv_start = 8, 32, 30
    made.prompt_cache.fetch_nearest_cache = lambda _, tokens, **__: (None, tokens)  # type: ignore[method-assign]
    return made


def prompt(length: int, start: int = 0) -> list[int]:
    return [(start + 7 * n) % (VOCABULARY - 10) + 4 for n in range(length)]


@cache
def alone(
    name: str, length: int, start: int, seed: int | None, temperature: float, max_tokens: int
) -> tuple[int, ...]:
    """The text of a request without a draft, when nobody else is there."""
    asked = Asked(prompt(length, start), max_tokens, draft=0, seed=seed, temperature=temperature)
    generator_for(name).serve((0, asked))
    assert isinstance(asked.came[-2], server.Response), asked.came
    return tuple(asked.tokens)


class BrokenError(Exception):
    pass


class Breaking(Greedy):
    """Breaks at the fifth token."""

    def shape(self, logits: Any, position: int) -> Any:
        if position >= 5:
            raise BrokenError
        return logits
