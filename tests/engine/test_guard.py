"""What a web page can send to a worker's own port, and what the daemon sends."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from draftd.engine.guard import refusal
from tests.engine.served import Engine

JSON = {"Content-Type": "application/json"}
OURS = ["http://127.0.0.1:8000"]
CHAT = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("do_POST", {"Host": "127.0.0.1:8000", **JSON}, None),
        ("do_POST", {"Host": "localhost", "Content-Type": "Application/JSON; charset=utf-8"}, None),
        ("do_POST", {"Host": "[::1]:8000", **JSON}, None),
        ("do_POST", {"Host": "127.0.0.1:8000", "Origin": OURS[0], **JSON}, None),
        ("do_GET", {"Host": "127.0.0.1:8000"}, None),
        ("do_GET", {}, None),
        ("do_POST", {"Host": "127.0.0.1:8000", "Content-Type": "text/plain"}, 415),
        ("do_POST", {"Host": "127.0.0.1:8000"}, 415),
        ("do_POST", {"Host": "127.0.0.1:8000", "Origin": "null", **JSON}, 403),
        ("do_OPTIONS", {"Host": "127.0.0.1:8000", "Origin": "http://evil.example"}, 403),
        ("do_GET", {"Host": "evil.example:8000"}, 403),
        ("do_GET", {"Host": "127.0.0.1.evil.example"}, 403),
        ("do_GET", {"Host": "[::1].evil.example"}, 403),
        ("do_GET", {"Host": ""}, 403),
    ],
)
def test_only_what_no_page_can_send_is_let_in(
    method: str, headers: dict[str, str], status: HTTPStatus | None
) -> None:
    assert refusal(method, headers, "127.0.0.1", OURS) == status


def test_a_server_that_was_opened_by_hand_is_open() -> None:
    assert refusal("do_POST", {"Host": "my-mac.local", "Origin": "x", **JSON}, "0.0.0.0", ["*"]) is None
    assert refusal("do_GET", {"Host": "my-mac.local:8000"}, "my-mac.local", OURS) is None


@pytest.mark.real
@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 403),
        ({"Content-Type": "application/json"}, 200),
    ],
)
def test_a_workers_own_port_refuses_a_web_page(drafted: Engine, headers: dict[str, str], status: int) -> None:
    answered, body = drafted.post("/v1/chat/completions", CHAT, headers)
    assert answered == status
    assert (b'"choices"' in body) == (status == 200)
