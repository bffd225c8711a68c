"""Other weights and pictures from elsewhere are refused; what names the worker's own is taken."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from draftd.engine.own_models import OWN, keeping_to_own, no_fetching
from tests.engine.served import Engine, turn

JSON = {"Content-Type": "application/json"}
FLAGS = {"model": "org/target", "draft_model": "org/draft", "adapter_path": None}
ASKED = {"requested_model": OWN, "requested_draft_model": OWN, "adapter": None, "num_draft_tokens": 3}


def request(asked: dict[str, Any], **flags: Any) -> Any:
    """mlx_lm's handler, with what it has read of a request."""
    generator = Namespace(cli_args=Namespace(**FLAGS | flags))
    return Namespace(response_generator=generator, **ASKED | asked)


def check(made: Any) -> None:
    keeping_to_own(lambda _: None)(made)


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({}, {}),
        ({"requested_model": "org/target"}, {}),
        ({"requested_draft_model": "org/draft"}, {}),
        ({"requested_draft_model": None}, {"draft_model": None}),
        ({"adapter": "org/adapter"}, {"adapter_path": "org/adapter"}),
        ({"num_draft_tokens": 64}, {}),
    ],
)
def test_its_own_by_any_name_is_mlx_lms_default(asked: dict[str, Any], flags: dict[str, Any]) -> None:
    made = request(asked, **flags)
    check(made)
    assert (made.requested_model, made.requested_draft_model, made.adapter) == (OWN, OWN, None)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"requested_model": "org/other"}, "model must be 'default_model'"),
        ({"requested_model": ""}, "model must"),
        ({"requested_draft_model": "org/target"}, "draft_model must"),
        ({"requested_draft_model": None}, "draft_model must"),
        ({"requested_draft_model": ["org/draft"]}, "draft_model must"),
        ({"adapter": "org/adapter"}, "adapters must"),
        ({"adapter": ""}, "adapters must"),
        ({"num_draft_tokens": 65}, "num_draft_tokens must be at most 64"),
    ],
)
def test_anything_else_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(request(asked))


def test_a_server_that_was_started_without_a_model_loads_what_it_is_asked_for() -> None:
    made = request({"requested_model": "org/any"}, model=None, draft_model=None)
    check(made)
    assert made.requested_model == "org/any"


@pytest.mark.parametrize("url", ["http://x/y.png", "HTTPS://x/y.png", "ftp://x", "file:///etc/passwd", 7])
def test_no_picture_is_fetched(url: object) -> None:
    def inline(messages: list[Any]) -> None:
        raise AssertionError("it was fetched")

    with pytest.raises(ValueError, match="this worker fetches nothing"):
        no_fetching(inline, iter)(["data:image/png;base64,", url])


def test_pictures_in_the_request_go_on_to_mlx_lm() -> None:
    seen: list[Any] = []
    no_fetching(seen.extend, iter)(["data:image/png;base64,"])
    assert seen == ["data:image/png;base64,"]


@pytest.mark.real
def test_an_engine_neither_loads_nor_fetches(drafted: Engine, pair: tuple[Path, Path]) -> None:
    asked: dict[str, Any] = {"prompt": turn("Hello!"), "max_tokens": 2}
    first = drafted.ask("/v1/completions", **asked)["choices"]
    loaded = len(drafted.records("loaded"))
    for more in ({"model": str(pair[1])}, {"draft_model": None}, {"adapters": "x"}):
        status, answer = drafted.post("/v1/completions", json.dumps(asked | more), JSON)
        assert (status, b"loads no other models" in answer) == (400, True), answer
    content = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]
    body = {"messages": [{"role": "user", "content": content}]}
    status, answer = drafted.post("/v1/chat/completions", json.dumps(body), JSON)
    assert (status, b"fetches nothing" in answer) == (400, True), answer
    assert drafted.ask("/v1/completions", **asked, model=str(pair[0]))["choices"] == first
    assert len(drafted.records("loaded")) == loaded
