"""What may be read: prompts within the context, of clients that are still there."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.demo import TARGET
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.context_limit import count_prompt, tokenizing, tokens_left
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from tests.engine.served import Engine

CONTEXT: int = json.loads((TARGET / "config.json").read_text())["max_position_embeddings"]
JSON = {"Content-Type": "application/json"}
GENERATOR = SimpleNamespace(
    model_provider=SimpleNamespace(model=SimpleNamespace(args=SimpleNamespace(max_position_embeddings=10)))
)

TEXT = SimpleNamespace(request_type="text", prompt="hi")


class Words:
    """A tokenizer: a word is a token. `longest` is the longest text that it was given, in characters."""

    def __init__(self) -> None:
        self.longest = 0

    def encode(self, text: str, **_: Any) -> list[int]:
        self.longest = max(self.longest, len(text))
        return [1] * len(text.split())

    def apply_chat_template(self, messages: Any, *, tokenize: bool = True, **_: Any) -> Any:
        text = " ".join(message["content"] for message in messages)
        return self.encode(text) if tokenize else text


def read(self: Any, tokenizer: Any, request: Any, args: Any) -> Any:
    """As mlx_lm reads a prompt."""
    if request.request_type == "chat":
        return (tokenizer.apply_chat_template(request.messages, tokenize=True),)
    return (tokenizer.encode(request.prompt),)


def a_request(kind: str, text: str) -> SimpleNamespace:
    messages = [{"role": "user", "content": text}]
    return SimpleNamespace(request_type=kind, prompt=text, messages=messages, tools=None)


@pytest.mark.fault(52, 74)
@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_prompt_that_is_far_too_long_is_refused_before_the_whole_is_tokenized(kind: str) -> None:
    words = Words()
    with pytest.raises(RefusedRequestError, match=r"more than \d+ tokens.* 10 tokens") as caught:
        tokenizing(read)(GENERATOR, words, a_request(kind, "a " * 100_000), SimpleNamespace(max_tokens=1))
    assert caught.value.code == CONTEXT_LENGTH_EXCEEDED
    assert caught.value.param == {"chat": "messages", "text": "prompt"}[kind]
    assert words.longest <= 40


@pytest.mark.fault(52, 74)
def test_what_a_call_of_a_tool_or_a_thought_adds_to_a_prompt_counts() -> None:
    for name, value in (
        ("reasoning_content", "a " * 1000),
        ("tool_calls", [{"function": {"arguments": "a " * 1000}}]),
    ):
        words, request = Words(), a_request("chat", "a " * 100_000)
        request.messages = [{"role": "assistant", "content": "", name: value}]

        def template(messages: Any, *, tokenize: bool = True, tokenizer: Any = words, **_: Any) -> Any:
            return tokenizer.encode(str(messages)) if tokenize else str(messages)

        words.apply_chat_template = template  # type: ignore[method-assign]
        with pytest.raises(RefusedRequestError, match="more than"):
            tokenizing(read)(GENERATOR, words, request, SimpleNamespace(max_tokens=1))


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_long_prompt_of_few_tokens_is_read(kind: str) -> None:
    args = SimpleNamespace(max_tokens=100)
    text = "a " * 3 + "b" * 1000
    assert len(tokenizing(read)(GENERATOR, Words(), a_request(kind, text), args)[0]) == 4
    assert args.max_tokens == 6


class Generator:
    """As mlx_lm's, with the hook in it."""

    def __init__(self, tokenizer: Any) -> None:
        model = GENERATOR.model_provider.model
        self.model_provider = SimpleNamespace(model=model, tokenizer=tokenizer)

    _tokenize = tokenizing(read)


@pytest.mark.fault(91)
@pytest.mark.parametrize("kind", ["chat", "text"])
def test_tokens_are_counted_beyond_the_context_but_not_without_end(kind: str) -> None:
    words = Words()
    assert count_prompt(Generator(words), a_request(kind, "a " * 5), None) == 5
    assert count_prompt(Generator(words), a_request(kind, "a " * 39 + "b" * 1000), None) == 40
    words.longest = 0
    with pytest.raises(RefusedRequestError, match=r"more than \d+ tokens.* 10 tokens"):
        count_prompt(Generator(words), a_request(kind, "a " * 100_000), None)
    assert words.longest <= 40


def tokenized(prompt: list[int], **arguments: Any) -> SimpleNamespace:
    """The arguments of a request after its prompt was tokenized."""
    args = SimpleNamespace(**{"max_tokens": 5} | arguments)
    wrapped = tokenizing(lambda self, tokenizer, request, args: (prompt, [prompt], ["user"], "normal", None))
    assert wrapped(GENERATOR, None, TEXT, args)[0] == prompt
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

    with pytest.raises(RefusedRequestError, match="KeyError: 'role'") as caught:
        tokenizing(broken)(GENERATOR, None, TEXT, SimpleNamespace(max_tokens=1))
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(("prompt", "code"), [([], None), ([1] * 10, CONTEXT_LENGTH_EXCEEDED)])
def test_what_is_refused_of_a_prompt_names_its_field(prompt: list[int], code: str | None) -> None:
    for request, param in ((TEXT, "prompt"), (a_request("chat", "hi"), "messages")):
        wrapped = tokenizing(lambda *_: (prompt, [prompt], ["user"], "normal", None))
        with pytest.raises(RefusedRequestError) as caught:
            wrapped(GENERATOR, None, request, SimpleNamespace(max_tokens=1))
        assert (caught.value.code, caught.value.param) == (code, param)


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


@pytest.mark.real
@pytest.mark.fault(52, 74)
@pytest.mark.parametrize("text", ["word " * 500_000, "a" * 2_500_000])
def test_an_engine_refuses_a_huge_prompt_quickly(plain: Engine, text: str) -> None:
    """Such a prompt took it minutes as a whole, and gigabytes."""
    for path, body in (
        ("/v1/completions", {"prompt": text}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
    ):
        began = time.monotonic()
        status, answer = plain.post(path, json.dumps(body), JSON)
        error = json.loads(answer)["error"]
        assert (status, error["code"]) == (400, CONTEXT_LENGTH_EXCEEDED)
        assert "more than" in error["message"]
        assert time.monotonic() - began < 10
