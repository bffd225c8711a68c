"""What may be read: prompts within the context, of clients that are still there."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.demo import TARGET
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.context_limit import tokenizing, tokens_left
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from tests.engine.served import Engine

CONTEXT: int = json.loads((TARGET / "config.json").read_text())["max_position_embeddings"]
JSON = {"Content-Type": "application/json"}
GENERATOR = SimpleNamespace(
    model_provider=SimpleNamespace(model=SimpleNamespace(args=SimpleNamespace(max_position_embeddings=10)))
)


def tokenized(prompt: list[int], **arguments: Any) -> SimpleNamespace:
    """The arguments of a request after its prompt was tokenized."""
    args = SimpleNamespace(**{"max_tokens": 5} | arguments)
    wrapped = tokenizing(lambda self, tokenizer, request, args: (prompt, [prompt], ["user"], "normal", None))
    assert wrapped(GENERATOR, None, None, args)[0] == prompt
    return args


@pytest.mark.parametrize(
    ("prompt_tokens", "context", "left"), [(1, 10, 5), (5, 10, 5), (6, 10, 4), (9, 10, 1), (10**9, None, 5)]
)
def test_an_answer_gets_what_is_left_of_the_context(
    prompt_tokens: int, context: int | None, left: int
) -> None:
    assert tokens_left(prompt_tokens, 5, context) == left


@pytest.mark.parametrize("prompt_tokens", [10, 11])
def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(prompt_tokens: int) -> None:
    with pytest.raises(RefusedRequestError, match=rf"\b{prompt_tokens} tokens.*\b10 tokens") as caught:
        tokens_left(prompt_tokens, 1, 10)
    assert caught.value.code == CONTEXT_LENGTH_EXCEEDED


def test_a_prompt_without_a_token_is_refused() -> None:
    with pytest.raises(RefusedRequestError, match="empty"):
        tokens_left(0, 1, None)


def test_the_arguments_that_go_on_are_cut() -> None:
    assert tokenized([1] * 8).max_tokens == 2


def test_what_goes_wrong_in_a_template_is_the_request_s_fault() -> None:
    def broken(*_: Any) -> None:
        raise KeyError("role")

    with pytest.raises(RefusedRequestError, match="KeyError: 'role'"):
        tokenizing(broken)(GENERATOR, None, None, SimpleNamespace(max_tokens=1))


def test_who_left_before_the_turn_costs_nothing() -> None:
    with pytest.raises(LeftError):
        tokenized([1], **{LEFT_ATTRIBUTE: True})
    assert tokenized([1], **{LEFT_ATTRIBUTE: False})


@pytest.mark.real
@pytest.mark.fault(52)
@pytest.mark.parametrize("which", ["drafted", "plain"])
def test_an_engine_reads_no_prompt_that_is_too_long(which: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(which)
    words = CONTEXT + 100
    for stream in (True, False):
        body = {"prompt": "word " * words, "max_tokens": 1, "stream": stream}
        status, answer = engine.post("/v1/completions", json.dumps(body), JSON)
        error = json.loads(answer)["error"]
        assert (status, error["code"]) == (400, CONTEXT_LENGTH_EXCEEDED)
        assert str(CONTEXT) in error["message"]
    chat = {"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 1}
    status, answer = engine.post("/v1/chat/completions", json.dumps(chat), JSON)
    assert (status, "could not be read" in json.loads(answer)["error"]["message"]) == (400, True)
