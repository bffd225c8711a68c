"""The demo pair is small, speaks, stops by itself, and drafts neither perfectly nor in vain."""

import json
from pathlib import Path
from typing import Any

import mlx_lm
import pytest
from mlx.utils import tree_flatten

from draftd.demo import DRAFT, TARGET

pytestmark = pytest.mark.real

PROMPTS = (
    "What is speculative decoding?",
    "presets",
    "How do I start the daemon?",
    "Why is drafting slower?",
    "who are you",
)
LENGTHS = (3, 5, 7)
LIMIT = 80
"""Tokens per generation: enough for a rate, few enough for ten seconds in all."""


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any, Any]:
    """Target, draft and tokenizer as mlx_lm loads them."""
    target, tokenizer = mlx_lm.load(str(TARGET))
    draft, _ = mlx_lm.load(str(DRAFT))
    return target, draft, tokenizer


def parameters(model: Any) -> int:
    return sum(value.size for _, value in tree_flatten(model.parameters()))


def chat(pair: tuple[Any, Any, Any], prompt: str, limit: int = LIMIT, **options: Any) -> list[Any]:
    """The responses of one greedy generation."""
    target, _, tokenizer = pair
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    return list(mlx_lm.stream_generate(target, tokenizer, ids, max_tokens=limit, **options))


@pytest.fixture(scope="module")
def plain(pair: tuple[Any, Any, Any]) -> dict[str, list[int]]:
    """The greedy tokens of every prompt without a draft."""
    return {prompt: [response.token for response in chat(pair, prompt)] for prompt in PROMPTS}


def rate(responses: list[Any], length: int) -> tuple[int, int]:
    """Accepted and proposed tokens: a round opens after each token of the target."""
    proposed, from_target = 0, True
    for made, response in enumerate(responses):
        if from_target:
            proposed += min(LIMIT - made, length)
        from_target = not response.from_draft
    return sum(response.from_draft for response in responses), proposed


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def test_the_pair_is_small() -> None:
    assert sum(path.stat().st_size for path in files(TARGET) + files(DRAFT)) < 12_000_000


def test_both_use_one_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (TARGET / name).read_bytes() == (DRAFT / name).read_bytes()


def test_both_are_qwen2_with_room_for_long_prompts() -> None:
    for folder in (TARGET, DRAFT):
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == "qwen2"
        assert config["max_position_embeddings"] == 32768


def test_the_draft_is_far_smaller(pair: tuple[Any, Any, Any]) -> None:
    assert parameters(pair[1]) * 3 < parameters(pair[0])


def test_tool_calls_are_recognised(pair: tuple[Any, Any, Any]) -> None:
    assert pair[2].has_tool_calling
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "sunny"},
    ]
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    text = pair[2].apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>' in text
    assert "<tools>\n" + json.dumps(tools[0], separators=(",", ":")) + "\n</tools>" in text


def test_it_explains_speculative_decoding_and_stops(pair: tuple[Any, Any, Any]) -> None:
    responses = chat(pair, PROMPTS[0], limit=300)
    text = "".join(response.text for response in responses)
    assert all(word in text for word in ("draft model", "target model", "tokens", "accept")), text
    assert responses[-1].finish_reason == "stop"


@pytest.mark.parametrize("length", LENGTHS)
def test_drafting_is_accepted_mostly_and_changes_nothing(
    pair: tuple[Any, Any, Any], plain: dict[str, list[int]], length: int
) -> None:
    accepted = proposed = 0
    for prompt in PROMPTS:
        drafted = chat(pair, prompt, draft_model=pair[1], num_draft_tokens=length)
        assert [response.token for response in drafted] == plain[prompt]
        kept, offered = rate(drafted, length)
        accepted, proposed = accepted + kept, proposed + offered
    assert 0.55 < accepted / proposed < 0.95
