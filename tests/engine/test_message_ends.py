"""Checkpoints at the ends of messages, for models whose layers cannot be cut to any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from mlx_lm.models.cache import KVCache

from draftd.engine import message_ends as module
from draftd.engine.generation.caches.layers import will_rewind
from draftd.engine.generation.caches.recurrent import RecordingArraysCache
from draftd.engine.generation.caches.sliding import MARGIN, SlidingKVCache
from draftd.engine.message_ends import divided, message_ends, needs_checkpoints
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import VOCABULARY, Asked, Generator


@pytest.mark.parametrize(
    ("name", "needed"), [("qwen2", False), ("gemma3_text", True), ("qwen3_next", True), ("mamba2", True)]
)
def test_models_with_windows_or_states_need_them(name: str, needed: bool) -> None:
    assert needs_checkpoints(make(name)) is needed


def conversation(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": [number + 10] * 5} for number, role in enumerate(roles)]


def render(messages: Sequence[dict[str, Any]]) -> list[int]:
    return [token for message in messages for token in message["content"]]


def test_they_are_before_some_of_the_last_messages_of_the_user() -> None:
    messages = conversation("system", *["user", "assistant"] * 5, "user")
    prompt = [*render(messages), 1, 2]
    assert message_ends(prompt, messages, render) == [5 * place for place in (5, 9, 11)]
    assert message_ends(prompt, messages[:4], render) == [15]
    assert message_ends(prompt, messages[:2], render) == []
    assert message_ends(prompt, None, render) == []


def test_an_end_is_where_the_prompt_and_the_message_part() -> None:
    messages = conversation("user", "assistant", "user")
    prompt = [10, 10, 10, 10, 10, 11, 11, 99, 12]  # a template that shows old answers otherwise
    assert message_ends(prompt, messages, render) == [7]


def test_parts_are_divided_where_that_is_far_enough_from_other_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_TOKENS", 3)
    segments, kinds = [[*range(4)], [*range(4, 20)]], ["system", "user"]
    parts, named = divided(segments, kinds, [5, 10, 12, 18])
    assert [len(part) for part in parts] == [4, 8, 8]
    assert [token for part in parts for token in part] == [*range(20)]
    assert named == ["system", "user", "user"]
    assert divided(segments, kinds, []) == (segments, kinds)


def test_a_window_that_is_left_behind_does_not_come_back() -> None:
    window = SlidingKVCache(200)
    assert will_rewind(window, 10, 200)
    assert not will_rewind(window, 10, 201)
    assert will_rewind(window, 500, 500 + MARGIN)
    assert will_rewind(KVCache(), 10, 10_000)
    state = RecordingArraysCache(1)
    assert (will_rewind(state, 10, 10), will_rewind(state, 10, 11)) == (True, False)


@pytest.mark.parametrize("name", ["mamba2", pytest.param("gemma3_text", marks=pytest.mark.thorough)])
def test_a_conversation_that_is_edited_in_the_middle_is_read_from_there(name: str) -> None:
    prompt = [(7 * i * i + 3 * i) % (VOCABULARY - 3) + 3 for i in range(500)]
    generator = Generator(make(name), noisy(name), ends=False)
    parts = [prompt[:50], prompt[50:300], prompt[300:]]

    def tokenize(tokenizer: Any, request: Any, args: Any) -> Any:
        whole = list(request.prompt)
        return whole, [whole[:50], whole[50:300], whole[300:]], ["system", "user", "user"], "normal", None

    generator._tokenize = tokenize  # type: ignore[method-assign]
    generator.serve((0, Asked([token for part in parts for token in part], max_tokens=40)))
    edited = [*prompt[:320], *([5] * 40), *prompt[360:]]
    then = Asked(edited, max_tokens=8)
    generator.serve((0, then))
    assert then.context.prompt_cache_count >= 300
    cold = Generator(make(name), noisy(name), ends=False)
    wanted = Asked(edited, max_tokens=8)
    cold.serve((0, wanted))
    assert then.tokens == wanted.tokens
