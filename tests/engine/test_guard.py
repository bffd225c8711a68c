"""What programs and web pages can send to a worker's own port, and what the daemon sends."""

from __future__ import annotations

import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from draftd.engine import channel
from draftd.engine.guard import refusal, refuse_strangers
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


class Handler(BaseHTTPRequestHandler):
    """In the place of mlx_lm's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


def answered(secret: str, request: bytes) -> bytes:
    """The first line that a server with this secret answers."""

    class Guarded(Handler):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_secret", secret)
        refuse_strangers(Guarded)
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with (
            socket.create_connection(("127.0.0.1", server.server_port)) as client,
            client.makefile("rb") as answer,
        ):
            client.settimeout(10)
            client.sendall(request)
            return answer.readline()


@pytest.mark.parametrize(
    "line", ["GET /health", "GET /v1/models", "POST /v1/completions", "OPTIONS /", "X /"]
)
@pytest.mark.parametrize(
    "told", ["", "X-Draftd-Secret: \r\n", "X-Draftd-Secret: nightingal\r\n", "Secret: é\r\n"]
)
def test_whoever_does_not_know_the_secret_is_refused_whatever_is_asked(line: str, told: str) -> None:
    request = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{told}\r\n".encode()
    assert answered("nightingale", request).startswith(b"HTTP/1.0 403 ")


def test_who_knows_the_secret_is_answered_and_without_one_everybody() -> None:
    request = b"GET /health HTTP/1.1\r\nX-Draftd-Secret: nightingale\r\n\r\n"
    assert answered("nightingale", request).startswith(b"HTTP/1.0 200 ")
    assert answered("", b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 200 ")


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
