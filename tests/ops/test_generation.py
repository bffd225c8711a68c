"""generation: what a client sees of a stream, its figures, and every way in which a stream is not one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from draftd.errors import DraftdError
from draftd.ops.generation import Drafted, OpenAIServer, Piece, timed
from tests.harness import chat, free_ports
from tests.ops.servers import scripted


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with scripted() as url:
        yield OpenAIServer(url)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://a:1", "http://a:1"),
        ("http://a:1/v1/", "http://a:1"),
        ("localhost:8000", "http://localhost:8000"),
        ("https://a/openai/v1", "https://a/openai"),
    ],
)
def test_an_address_is_taken_with_and_without_its_usual_end(url: str, root: str) -> None:
    assert OpenAIServer(url).root == root


def test_a_generation_is_shown_as_it_comes_and_counted(server: OpenAIServer) -> None:
    shown: list[Piece] = []
    made = server.generate(chat("[[tokens 4]]", max_tokens=4), shown.append)
    assert shown == [Piece("one"), Piece(" two"), Piece(" three"), Piece(" four")]
    assert (made.text, made.tokens, made.counted, made.finish_reason) == (
        "one two three four",
        4,
        True,
        "length",
    )


def test_times_are_taken_from_the_request_to_the_first_and_the_last_token(server: OpenAIServer) -> None:
    waited = server.generate(chat("[[wait 0.3]]", max_tokens=4))
    assert 0.3 < waited.first_token <= waited.seconds
    slow = server.generate(chat("[[slow 0.1]]", max_tokens=4))
    assert slow.seconds - slow.first_token > 0.25  # the last of four comes after three pauses
    assert slow.tokens_per_second == 4 / slow.seconds


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("no-done", "without its end mark"),
        ("half-event", "an event that is not JSON"),
        ("error-event", "ended in an error: broken inside"),
        ("tokens 0", "the answer has no text"),
        ("status 503", "answers with status 503: asked for status 503"),
    ],
)
def test_what_is_not_a_whole_answer_is_an_error_that_says_so(order: str, message: str) -> None:
    with scripted() as url, pytest.raises(DraftdError, match=message):
        OpenAIServer(url).generate(chat(f"[[{order}]]", max_tokens=5))


def test_a_server_that_dies_in_the_middle_of_its_answer_is_noticed() -> None:
    with scripted() as url, pytest.raises(DraftdError, match=r"cut short|broke off"):
        OpenAIServer(url).generate(chat("[[die-mid-stream]]", max_tokens=5))


def test_nobody_at_the_address_is_an_error_with_the_reason() -> None:
    nobody = OpenAIServer(f"http://127.0.0.1:{free_ports()}")
    for ask in (nobody.models, lambda: nobody.worker("a"), lambda: nobody.generate(chat())):
        with pytest.raises(DraftdError, match=r"nobody answers at http.*: Connection refused"):
            ask()


def test_a_server_that_is_no_draftd_tells_neither_models_nor_workers(server: OpenAIServer) -> None:
    assert server.models() is None
    assert server.worker("a") is None


# --- what was drafted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timings", "drafted"),
    [
        ({"predicted_n": 4, "draft_n": 40, "draft_n_accepted": 35}, Drafted(40, 35)),
        ({"predicted_n": 4}, None),
        ({"draft_n": None, "draft_n_accepted": "many"}, None),
    ],
)
def test_what_was_drafted_is_what_the_server_says_with_its_answer(
    timings: dict[str, Any], drafted: Drafted | None
) -> None:
    last = {"choices": [{"delta": {"content": "one"}}], "timings": timings}
    events = [json.dumps(last).encode(), b"[DONE]"]
    assert timed(iter(events), 0.0).drafted == drafted


def test_who_drafted_what_is_shown_and_so_are_thoughts_beside_what_is_said() -> None:
    told = {"content": [{"text": "a", "drafter": "model"}, {"text": "b", "drafter": None}]}
    choices = [
        {"delta": {"content": "ab"}, "drafters": told},
        {"delta": {"reasoning": "hm", "content": "so"}},
    ]
    events = [*(json.dumps({"choices": [choice]}).encode() for choice in choices), b"[DONE]"]
    shown: list[Piece] = []
    made = timed(iter(events), 0.0, shown.append)
    assert shown == [Piece("a", "model"), Piece("b"), Piece("hm", thought=True), Piece("so")]
    assert made.text == "abhmso"
