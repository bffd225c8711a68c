"""Conversations that nobody wrote, with and without a draft: the same text, from a cache that is used."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.served import Engine

pytestmark = pytest.mark.real

WORDS = [
    "draftd",
    "round",
    "draft",
    "length",
    "cache",
    "sea",
    "list",
    "Python",
    "hello",
    "why",
    "9",
    "?",
    "{",
    "é",
]

questions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
turns = st.tuples(questions, st.integers(0, 7), st.integers(1, 16))
"""A question, the draft length of its request, and the longest answer in tokens."""


class Chat:
    """One side of the comparison: a conversation with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._messages: list[dict[str, str]] = []
        self.cached: list[int] = []
        self.prompt: list[int] = []

    def ask(self, question: str, **body: Any) -> str:
        self._messages.append({"role": "user", "content": question})
        answer = self._engine.ask("/v1/chat/completions", messages=self._messages, **body)
        text: str = answer["choices"][0]["message"].get("content") or ""
        self._messages.append({"role": "assistant", "content": text})
        self.prompt.append(answer["usage"]["prompt_tokens"])
        self.cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        return text


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(conversation=st.lists(turns, min_size=2, max_size=4))
def test_a_conversation_is_the_same_with_and_without_a_draft(
    drafted: Engine, plain: Engine, conversation: list[tuple[str, int, int]]
) -> None:
    with_draft, without = Chat(drafted), Chat(plain)
    for question, draft_length, max_tokens in conversation:
        body = {"max_tokens": max_tokens, "num_draft_tokens": draft_length}
        assert with_draft.ask(question, **body) == without.ask(question, max_tokens=max_tokens)
    # A turn's prompt begins with the one before it, all but the opening of the answer.
    for before, cached, prompt in zip(
        with_draft.prompt[:-1], with_draft.cached[1:], with_draft.prompt[1:], strict=True
    ):
        assert before - 4 <= cached < prompt
