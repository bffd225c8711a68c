"""http: the one client, and the errors that it raises when the daemon refuses or is silent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from draftd.errors import DraftdError, NotRunningError
from draftd.instance import Instance
from draftd.ops.http import DaemonClient, HttpClient, NoAnswerError, RefusedError
from tests.harness import free_ports

REFUSALS = {
    "/openai": (503, {"error": {"message": "no worker"}}, "no worker"),
    "/mlx": (404, {"error": "no such model"}, "no such model"),
    "/silent": (500, {}, ""),
    "/v1/models/nope": (404, {"error": {"message": "no profile 'nope'"}}, "no profile 'nope'"),
    "/api/reload": (502, [], ""),
    "/v1/models/secret": (401, {"error": {"message": "a bearer token, please"}}, ""),
}


class Server(BaseHTTPRequestHandler):
    """Refuses what is in REFUSALS, and answers any other request with what it was."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        heard = [self.command, self.path, self.headers.get("Authorization"), self.headers.get("Content-Type")]
        status, answer, _ = REFUSALS.get(self.path, (200, [*heard, body], ""))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_has_its_method_its_key_and_its_body(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_ports()}")  # which nobody asks
    client = HttpClient(url, "word")
    assert client.json("/a") == ["GET", "/a", "Bearer word", None, ""]
    assert HttpClient(url).json("/a?b=1", method="POST") == ["POST", "/a?b=1", None, None, ""]
    with client.open("/a", method="POST", body={"b": 1}) as answer:
        assert json.load(answer) == ["POST", "/a", "Bearer word", "application/json", '{"b": 1}']


@pytest.mark.parametrize("path", ["/openai", "/mlx", "/silent"])
def test_a_refusal_has_the_servers_own_reason(url: str, path: str) -> None:
    status, _, reason = REFUSALS[path]
    with pytest.raises(RefusedError) as refused:
        HttpClient(url).json(path)
    assert (refused.value.status, refused.value.reason) == (status, reason)
    said = f"{url}{path} answers with status {status}"
    assert str(refused.value) == (f"{said}: {reason}" if reason else said)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("http://127.0.0.1:{port}", "Connection refused"), ("http://127.0.0.1:no", "nonnumeric port: 'no'")],
)
def test_where_nobody_answers_the_reason_is_told(address: str, reason: str) -> None:
    nowhere = address.format(port=free_ports())
    with pytest.raises(NoAnswerError, match=f"nobody answers at {nowhere}: {reason}"):
        HttpClient(nowhere).json("/")


def test_what_the_daemon_refuses_is_said_in_its_own_words(url: str, tmp_path: Path) -> None:
    with Instance(tmp_path) as running:
        running.announce(url, "1.2")
        client = DaemonClient(tmp_path)
        with pytest.raises(DraftdError) as refused:
            client.model("nope")
        assert str(refused.value) == "no profile 'nope'"
        with pytest.raises(DraftdError, match=r"^the daemon answered with status 502$"):
            client.reload()


@pytest.mark.parametrize(("key", "given"), [("", "none is"), ("old", "another one is")])
def test_who_lacks_the_key_is_told_where_it_belongs(url: str, tmp_path: Path, key: str, given: str) -> None:
    with Instance(tmp_path) as running:
        running.announce(url, "1.2")
        with pytest.raises(RefusedError) as refused:
            DaemonClient(tmp_path, key).model("secret")
    where = "DRAFTD_API_KEY, or as api_key in draftd.toml"
    assert str(refused.value) == f"the daemon at {url} asks for its API key, and {given} set here as {where}"


def test_a_daemon_that_does_not_answer_counts_as_not_running(tmp_path: Path) -> None:
    with Instance(tmp_path) as running:
        running.announce(f"http://127.0.0.1:{free_ports()}", "1.2")
        client = DaemonClient(tmp_path)
        with pytest.raises(
            NotRunningError, match=rf"\(pid {client.daemon.pid}\) does not answer at .*refused"
        ):
            client.status()
    with pytest.raises(NotRunningError, match="no daemon is running"):
        DaemonClient(tmp_path)
