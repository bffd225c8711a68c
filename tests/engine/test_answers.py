"""Answers of real engines: stop texts, log-probabilities, and work that ends when its client leaves."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from draftd.demo import TARGET
from draftd.engine.answers.logprobs import TokenNames
from tests.engine.served import Engine, turn

pytestmark = pytest.mark.real

QUESTION = "What is draftd?"
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60}
TEXT = {"prompt": turn(QUESTION), "max_tokens": 60}
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "text": ("/v1/completions", TEXT),
}


@pytest.fixture(params=["drafted", "plain"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


def chunks(engine: Engine, path: str, **body: Any) -> Iterator[dict[str, Any]]:
    with engine.open(path, stream=True, stream_options={"include_usage": True}, **body) as response:
        for event in response.read().decode().split("\n\n"):
            if event.startswith("data: {"):
                yield json.loads(event.removeprefix("data: "))


def parts(engine: Engine, path: str, *, stream: bool, **body: Any) -> tuple[list[str], str, dict[str, Any]]:
    """The pieces of an answer's text, why it ended, and its usage."""
    told = list(chunks(engine, path, **body)) if stream else [engine.ask(path, **body)]
    choices = [choice for each in told for choice in each["choices"]]
    texts = [
        choice.get("delta") or choice.get("message") or {"content": choice["text"]} for choice in choices
    ]
    return [text.get("content") or "" for text in texts], choices[-1]["finish_reason"], told[-1]["usage"]


@pytest.mark.parametrize("where", PATHS)
def test_an_answer_says_what_it_took(engine: Engine, where: str, request: pytest.FixtureRequest) -> None:
    path, body = PATHS[where]
    *_, last = chunks(engine, path, temperature=0, **body)
    again = engine.ask(path, temperature=0, **body)
    assert again["timings"]["cache_n"] > 0
    for told in (last, again):
        usage, timings = told["usage"], told["timings"]
        assert timings["predicted_n"] == usage["completion_tokens"]
        assert timings["cache_n"] == usage["prompt_tokens_details"]["cached_tokens"]
        assert timings["prompt_n"] + timings["cache_n"] == usage["prompt_tokens"]
        assert timings["predicted_ms"] > 0
        assert timings["predicted_per_second"] == pytest.approx(
            timings["predicted_n"] / timings["predicted_ms"] * 1000, rel=0.01
        )
        if engine is request.getfixturevalue("drafted"):
            assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
        else:
            assert "draft_n" not in timings


@pytest.mark.fault(49)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("where", PATHS)
def test_any_piece_of_the_answer_ends_it_where_it_first_stands(
    engine: Engine, where: str, stream: bool
) -> None:
    path, body = PATHS[where]
    ((full,), _, all_of_it) = parts(engine, path, stream=False, **body)
    dice = random.Random(1)
    for _ in range(12):
        begin = dice.randrange(1, len(full) - 20)
        stop = full[begin : begin + dice.randint(1, 12)]
        told, reason, usage = parts(engine, path, stream=stream, **body, stop=[stop, "never written"])
        assert "".join(told) == full[: full.find(stop)], stop
        assert (reason, usage["completion_tokens"] <= all_of_it["completion_tokens"]) == ("stop", True)


def test_the_generation_ends_with_the_answer(engine: Engine) -> None:
    """A request with a seed is not batched: it waits for what goes on."""
    endless = {"prompt": turn(QUESTION), "max_tokens": 30_000, "temperature": 5.0}
    stop = [chr(letter) for letter in range(ord("a"), ord("a") + 16)]
    told = engine.ask("/v1/completions", **endless, stop=stop)
    assert told["choices"][0]["finish_reason"] == "stop"
    began = time.monotonic()
    engine.complete("Hi!", max_tokens=1, seed=1)
    assert time.monotonic() - began < 5.0


def sent(engine: Engine, **body: Any) -> socket.socket:
    """The connection of a request of which nothing has been read."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", engine.port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


@pytest.mark.fault(30)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_prompt_is_read_no_further_when_its_client_has_left(plain: Engine, stream: bool) -> None:
    """Read to its end it takes half a minute; a request with a seed waits for what is being read."""
    before = len(plain.lines)
    with sent(plain, prompt=f"{stream} word" * 10_000, max_tokens=5, stream=stream):
        plain.wait_for(lambda lines: any("progress: 2048/" in line for line in lines[before:]))
    began = time.monotonic()
    plain.complete("Hi!", max_tokens=1, seed=1)
    assert time.monotonic() - began < 10.0


class Reference:
    """The target model's log-probabilities, by one pass over a text."""

    def __init__(self) -> None:
        self.model, self.tokenizer = mlx_lm.load(str(TARGET))
        names = TokenNames(self.tokenizer)
        self._tokens = {names.bytes_of(token): token for token in reversed(range(len(self.tokenizer)))}

    def token(self, data: bytes) -> int:
        """The token with these bytes."""
        return self._tokens[data]

    def logprobs(self, prompt: str, answer: list[int]) -> list[Any]:
        tokens = self.tokenizer.encode(prompt)
        logits = self.model(mx.array([[*tokens, *answer]]))[0].astype(mx.float32)
        logprobs: Any = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        return [logprobs[len(tokens) - 1 + place] for place in range(len(answer))]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


# One pass over a text and one for each token differ in bfloat16, by what a logit of 16 or more is rounded by.
NEAR = 0.15


@pytest.mark.fault(50)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("number", [0, 1, 5, 20])
def test_log_probabilities_are_the_target_models(
    engine: Engine, reference: Reference, number: int, temperature: float
) -> None:
    asked = {**CHAT, "max_tokens": 20, "logprobs": True, "top_logprobs": number, "temperature": temperature}
    asked["seed"] = 5  # a first token that begins with a space loses it, and looks like another
    choice = engine.ask("/v1/chat/completions", **asked)["choices"][0]
    entries = choice["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == choice["message"]["content"]
    tokens = [reference.token(bytes(entry["bytes"])) for entry in entries]
    for entry, token, row in zip(entries, tokens, reference.logprobs(turn(QUESTION), tokens), strict=True):
        assert entry["logprob"] == pytest.approx(row[token].item(), abs=NEAR)
        tops = entry["top_logprobs"]
        assert len(tops) == number
        assert [top["logprob"] for top in tops] == sorted((top["logprob"] for top in tops), reverse=True)
        for top in tops:
            assert top["logprob"] == pytest.approx(row[reference.token(bytes(top["bytes"]))].item(), abs=NEAR)


@pytest.mark.parametrize("where", PATHS)
def test_streamed_log_probabilities_are_those_of_the_whole_answer(engine: Engine, where: str) -> None:
    path, body = PATHS[where]
    asked = {**body, "logprobs": True, "top_logprobs": 3, "stop": "practical"}
    whole = engine.ask(path, **asked)["choices"][0]
    streamed: dict[str, list[Any]] = {}
    for chunk in chunks(engine, path, **asked):
        for choice in chunk["choices"]:
            for name, values in (choice.get("logprobs") or {}).items():
                streamed.setdefault(name, []).extend(values or [])
    if where == "chat":
        tokens = [entry["token"] for entry in streamed["content"]]
        assert tokens == [entry["token"] for entry in whole["logprobs"]["content"]]
        assert all(len(entry["top_logprobs"]) == 3 for entry in streamed["content"])
    else:
        tokens = streamed["tokens"]
        assert tokens == whole["logprobs"]["tokens"]
        assert streamed["text_offset"] == whole["logprobs"]["text_offset"]
        text = whole["text"]
        at = streamed["text_offset"]
        assert [text[begin:end] for begin, end in pairwise(at)] == tokens[:-1]
        assert [name for name, values in streamed.items() if len(values) != len(tokens)] == []


@pytest.mark.parametrize("where", PATHS)
def test_an_answer_says_who_drafted_which_piece_of_it_if_it_is_asked_to(
    engine: Engine, where: str, request: pytest.FixtureRequest
) -> None:
    path, body = PATHS[where]
    asked = body | {"temperature": 0, "return_drafters": True}
    choice = engine.ask(path, **asked)["choices"][0]
    pieces = choice["drafters"]["content"]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert "".join(piece["text"] for piece in pieces) == text
    drafters = {piece["drafter"] for piece in pieces}
    drafts = request.node.callspec.params["engine"] == "drafted"
    assert drafters <= ({None, "model", "lookup"} if drafts else {None})
    assert (len(drafters) > 1) is drafts
    streamed = [c for chunk in chunks(engine, path, **asked) for c in chunk["choices"] if "drafters" in c]
    assert [piece["text"] for c in streamed for piece in c["drafters"]["content"]] == [
        piece["text"] for piece in pieces
    ]
    assert all("drafters" not in c for chunk in chunks(engine, path, **body) for c in chunk["choices"])
