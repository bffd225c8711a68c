"""What happens to every request, over both transports: who is let in, what errors look like, what is counted."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from draftd.web.answer_stream import Relay
from tests.harness import QUICK, Served, alive, chat, fake, serving
from tests.web.raw_http import TRANSPORTS, RawAnswer, Wire

Measured = Callable[[float], None]
BODY = json.dumps(chat("hi", model="a")).encode()
KEY = "Authorization: Bearer secret"
PROMPT_TOKENS = 'draftd_prompt_tokens_total{profile="a"}'
DURATION = "draftd_request_duration_seconds_count"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("served"), {"a": fake()}) as running:
        yield running


# --- one answer, whatever the transport -----------------------------------------------------------------------

STREAMED = {
    "cache-control": "no-cache",
    "content-type": "text/event-stream",
    "transfer-encoding": "chunked",
    "x-accel-buffering": "no",  # else nginx collects the stream
}
JSON = {"content-type": "application/json"}
EVERY = {"server", "date", "x-request-id"}
ROUTED = {"x-draftd-profile", "x-draftd-queue-position"}
SERVED = {*ROUTED, "x-draftd-worker"}

CASES: dict[str, tuple[Callable[[Wire], bytes], int, dict[str, str], set[str]]] = {
    "whole": (lambda w: w.chat("hi", KEY), 200, JSON, SERVED),
    "stream": (lambda w: w.chat("hi", KEY, stream=True), 200, STREAMED, SERVED),
    "text": (
        lambda w: w.post(b'{"model": "a", "prompt": "x"}', KEY, path="/v1/completions"),
        200,
        JSON,
        SERVED,
    ),
    "broken stream": (lambda w: w.chat("[[error-event]]", KEY, stream=True), 200, STREAMED, SERVED),
    "not JSON": (lambda w: w.post(b"{", KEY), 400, JSON, set()),
    "no key": (lambda w: w.chat(), 401, JSON | {"www-authenticate": "Bearer"}, set()),
    "foreign host": (lambda w: w.post(BODY, KEY, host="evil.example"), 403, JSON, set()),
    "foreign origin": (lambda w: w.post(BODY, KEY, "Origin: http://evil.example"), 403, JSON, set()),
    "unknown model": (lambda w: w.chat("hi", KEY, model="nobody"), 404, JSON, set()),
    "unknown path": (lambda w: w.post(BODY, KEY, path="/v1/nothing"), 404, JSON, set()),
    "other method": (lambda w: w.request(b"", KEY, method="GET"), 405, JSON, {"allow"}),
    "large": (lambda w: w.post(b" " * 5000, KEY), 413, JSON, set()),
    "form": (lambda w: w.post(BODY, KEY, kind="text/plain"), 415, JSON, set()),
    "full": (lambda w: w.chat("hi", KEY, model="full"), 429, JSON, {*ROUTED, "retry-after"}),
    "worker's": (lambda w: w.chat("[[status 500]]", KEY), 502, JSON, SERVED),
    "overloaded": (lambda w: w.chat("[[status 529]]", KEY), 529, JSON, SERVED),
    "stopped": (lambda w: w.chat("hi", KEY, model="off"), 503, JSON | {"x-should-retry": "false"}, ROUTED),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def various(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A daemon with a key, a worker that serves, one for which no request may wait, and one that is stopped."""
    full = fake(tables=QUICK + "[limits]\nconcurrency = 1\nqueue = 0\n")
    off = fake(top="autostart = false")
    profiles = {"a": fake(), "full": full, "off": off}
    folder = tmp_path_factory.mktemp("various")
    async with serving(folder, profiles, api_key="secret", max_body_bytes=2000) as running:
        await running.post("/api/workers/off/stop", headers={"Authorization": "Bearer secret"})
        yield running


@pytest.mark.parametrize("case", CASES)
async def test_the_transports_answer_alike(various: Served, case: str) -> None:
    make, status, exact, some = CASES[case]
    before = await _counted(various)
    answers = []
    async with Wire("fast").connect(various) as working:
        if case == "full":
            working.send(Wire("fast").chat("[[wait 30]]", KEY, model="full"))
            await various.until_queue("full")
        for transport in TRANSPORTS:
            answer = await Wire(transport).ask(various, make(Wire(transport)))
            answers.append(answer)
            assert answer.status == status
            assert answer.headers | exact == answer.headers
            optional = {"content-length", "connection"}
            assert set(answer.headers) - optional == EVERY | set(exact) | some
            assert answer.headers["server"] == "draftd"
            assert len(answer.headers["x-request-id"]) == 32
    fast, other = answers
    assert fast.headers["x-request-id"] != other.headers["x-request-id"]
    assert (fast.body, fast.whole) == (other.body, other.whole)
    own = {"x-request-id", "date"}
    assert {k: v for k, v in fast.headers.items() if k not in own} == {
        k: v for k, v in other.headers.items() if k not in own
    }
    assert list(_grown(before, await _counted(various)).values()) == ([] if case == "unknown path" else [2])


async def _counted(served: Served) -> dict[str, float]:
    metrics = await served.metrics(headers={"Authorization": "Bearer secret"})
    return {name: n for name, n in metrics.items() if name.startswith(("draftd_requests_total{", DURATION))}


def _grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The request series that have grown, and by how much."""
    grown = {name: n - before.get(name, 0) for name, n in after.items() if not name.startswith(DURATION)}
    return {name: n for name, n in grown.items() if n}


@pytest.mark.parametrize(
    ("make", "series"),
    [
        (lambda w: w.chat(), ("chat.completions", "a", 200)),
        (
            lambda w: w.post(b'{"model": "a", "prompt": "x"}', path="/v1/completions"),
            ("completions", "a", 200),
        ),
        (lambda w: w.chat(stream=True), ("chat.completions", "a", 200)),
        (lambda w: w.chat("[[error-event]]", stream=True), ("chat.completions", "a", 502)),
        (lambda w: w.chat("[[status 400]]"), ("chat.completions", "a", 400)),
        (lambda w: w.chat(model="nobody"), ("chat.completions", "_unknown", 404)),
        (lambda w: w.post(BODY, host="evil.example"), ("chat.completions", "_unknown", 403)),
    ],
    ids=["whole", "text", "stream", "broken", "refused", "unknown", "foreign"],
)
async def test_every_request_is_counted_once_under_what_became_of_it(
    wire: Wire, served: Served, make: Callable[[Wire], bytes], series: tuple[str, str, int]
) -> None:
    before = await _counted(served)
    await wire.ask(served, make(wire))
    after = await _counted(served)
    endpoint, profile, status = series
    key = f'draftd_requests_total{{endpoint="{endpoint}",profile="{profile}",status="{status}"}}'
    assert _grown(before, after) == {key: 1}
    seconds = f'{DURATION}{{endpoint="{endpoint}",profile="{profile}"}}'
    assert after[seconds] - before[seconds] == 1


@pytest.mark.parametrize("events", [0, 1])
async def test_a_fault_of_ours_is_a_500_or_ends_the_stream_that_has_begun_as_an_error(
    wire: Wire,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    events: int,
) -> None:
    feed, fed = Relay.feed, []

    def broken(self: Relay, data: bytes) -> bytes:
        fed.append(data)
        if len(fed) > events:
            raise RuntimeError("canary")
        return feed(self, data)

    monkeypatch.setattr(Relay, "feed", broken)
    answer = await wire.ask(served, wire.chat("[[slow 0.05]]", stream=True), limit=5)
    assert answer.status == (200 if events else 500)
    assert answer.whole == (not events)
    last = answer.body.removesuffix(b"\n\n").rpartition(b"data: ")[2]
    assert json.loads(last)["error"] == {
        "message": "a fault in draftd; its log has the details",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert b"canary" not in answer.body
    said = capfd.readouterr()
    assert answer.headers["x-request-id"] in said.out + said.err
    assert "canary" in said.out + said.err


# --- what attackers and careless clients send -----------------------------------------------------------------


@pytest.mark.fault(31)
async def test_huge_and_compressed_bodies_are_refused_before_they_are_read(
    wire: Wire, served: Served
) -> None:
    huge = await wire.ask(served, wire.request(b"{", "Content-Length: 1073741824"))
    assert (huge.status, huge.headers["connection"]) == (413, "close")
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    endless = await wire.ask(served, wire.request(chunk * 40, "Transfer-Encoding: chunked"))
    assert (endless.status, endless.error) == (413, huge.error)
    bomb = gzip.compress(b" " * 2**24)
    assert (await wire.ask(served, wire.post(bomb, "Content-Encoding: gzip"))).status == 415


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
        b'{"messages": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        b'{"temperature": NaN}',
        json.dumps(chat("\ud800", model="a")).encode(),
        b"[]",
        b"",
        b"null",
    ],
    ids=["deep", "deep-objects", "digits", "utf8", "bom", "nan", "surrogate", "list", "empty", "null"],
)
async def test_hostile_json_is_the_clients_fault(
    wire: Wire, served: Served, body: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await wire.ask(served, wire.post(body))
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    said = capfd.readouterr()
    assert "9999999" not in said.out + said.err


@pytest.mark.fault(33, 34, 35)
async def test_what_reaches_a_worker_is_safe_and_what_was_routed(wire: Wire, tmp_path: Path) -> None:
    log = tmp_path / "requests"
    profiles = {"a": fake("--log-requests", str(log)), "b": fake("--log-requests", str(log))}
    async with serving(tmp_path, profiles) as served:
        log.write_text("")
        twice = b'{"model": "a", "model": "b", "messages": [{"role": "user", "content": "x"}]}'
        answer = await wire.ask(served, wire.post(twice))
        assert (answer.status, answer.json["model"]) == (200, "b")
        unknown = await wire.ask(served, wire.chat(model="nope"))
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert "a, b" in unknown.error["message"]
        for name in ("adapters", "draft_model"):
            loader = await wire.ask(served, wire.chat(**{name: "/x"}))
            assert (loader.status, loader.error["param"]) == (400, name)
        fields: dict[str, Any] = {"max_tokens": None, "stream_options": {}, "stream": True}
        bad = await wire.ask(served, wire.chat(**fields))
        assert bad.body.endswith(b"data: [DONE]\n\n")
        sent = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(sent) == 2
        for body in sent:
            assert body["model"] == "fake"
            assert "max_tokens" not in body
            assert body["stream_options"] == {"include_usage": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A daemon whose only worker would run our engine, and is not started."""
    profile = 'model = "org/model"\nautostart = false\n'
    async with serving(tmp_path_factory.mktemp("own"), {"a": profile}, ready=False) as running:
        yield running


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"tool_choice": "sometimes"}, "tool_choice", None),
        ({"store": True}, "store", "unsupported_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_value"),
        ({"stream": True, "audio": {"voice": "a", "format": "wav"}}, "audio", "unsupported_parameter"),
        ({"temprature": 0.5}, "temprature", "unknown_parameter"),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role", None),
    ],
)
async def test_a_field_that_nobody_would_honour_is_refused_by_its_name(
    own: Served, wire: Wire, fields: dict[str, Any], param: str, code: str | None
) -> None:
    answer = await wire.ask(own, wire.chat(**fields))
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)
    assert param in answer.error["message"]


@pytest.mark.fault(59)
@pytest.mark.parametrize("name", ["echo", "suffix", "best_of", "tools"])
async def test_the_same_holds_for_a_text(own: Served, wire: Wire, name: str) -> None:
    asked = {"prompt": "x", "model": "a", name: {"echo": True, "suffix": "y"}.get(name, 2)}
    answer = await wire.ask(own, wire.post(json.dumps(asked).encode(), path="/v1/completions"))
    assert (answer.status, answer.error["param"]) == (400, name)


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    "make",
    [
        lambda w: w.post(BODY, "Transfer-Encoding: chunked"),
        lambda w: w.post(BODY, "Content-Length: 3"),
        lambda w: w.post(BODY).replace(b"\r\n", b"\n"),
        lambda w: w.post(BODY, "X-Folded: a\r\n b"),
        lambda w: w.request(BODY, f"Content-Length : {len(BODY)}"),
        lambda w: w.request(BODY, f"Content-Length: +{len(BODY)}"),
        lambda w: w.request(BODY, "Transfer-Encoding: chunked, identity"),
    ],
    ids=["both", "two lengths", "bare LF", "folded", "space", "plus", "encodings"],
)
async def test_an_ambiguous_request_is_refused_and_the_connection_closed(
    wire: Wire, served: Served, make: Callable[[Wire], bytes]
) -> None:
    before = (await served.metrics())[PROMPT_TOKENS]
    smuggled = b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with wire.connect(served, used=True) as connection:
        connection.send(make(wire) + smuggled)
        assert (await connection.answer()).status == 400
        assert await connection.rest() == b""  # one answer, and none to what was smuggled behind it
    assert (await served.metrics())[PROMPT_TOKENS] == before  # no worker was asked


@pytest.mark.fault(37)
async def test_hop_by_hop_headers_and_upgrades_change_nothing(wire: Wire, tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, api_key="secret") as served:
        upgrade = await wire.ask(
            served, wire.chat("hi", "Upgrade: websocket", KEY, "Connection: Upgrade, close")
        )
        assert upgrade.status == 200
        hidden = await wire.ask(served, wire.chat("hi", "Connection: Authorization, close"))
        assert hidden.status == 401


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("headers", "host", "kind", "expected"),
    [
        (("Origin: http://evil.example",), "127.0.0.1", "application/json", 403),
        (("Origin: null",), "127.0.0.1", "application/json", 403),
        ((), "evil.example", "application/json", 403),
        ((), "127.0.0.1.evil.example", "application/json", 403),
        ((), "127.0.0.1", "text/plain", 415),
        ((), "127.0.0.1", "application/x-www-form-urlencoded", 415),
        ((), "localhost:8080", "application/json", 200),
    ],
)
async def test_a_web_page_cannot_drive_the_daemon(
    wire: Wire, served: Served, headers: tuple[str, ...], host: str, kind: str, expected: int
) -> None:
    answer = await wire.ask(served, wire.post(BODY, *headers, host=host, kind=kind))
    assert answer.status == expected
    assert not [name for name in answer.headers if name.startswith("access-control")]
    if expected == 403:
        stop = wire.post(b"", *headers, host=host, path="/api/workers/a/stop")
        assert (await wire.ask(served, stop)).status == 403
        assert served.state("a") == "ready"


@pytest.mark.fault(40)
async def test_it_is_no_forward_proxy(wire: Wire, served: Served) -> None:
    async with wire.connect(served, used=True) as connection:
        connection.send(b"GET http://127.0.0.1/api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await connection.answer()).status == 403


@pytest.mark.one_in(2)
@pytest.mark.fault(42)
async def test_neither_a_key_nor_a_prompt_is_ever_seen_again(
    wire: Wire, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key, prompt = "canary-key-7f3a", "canary-prompt-91bd"
    async with serving(tmp_path, {"a": fake()}, api_key=key) as served:
        right = {"Authorization": f"Bearer {key}"}
        for text in (prompt, f"{prompt} [[status 500]]", f"{prompt} [[die-mid-stream]]"):
            await wire.ask(served, wire.chat(text, f"Authorization: Bearer {key}", stream=True))
        await served.until(lambda: served.row("a")["restarts"] == 1 and served.state("a") == "ready")
        wrong = await wire.ask(served, wire.chat(prompt, "Authorization: Bearer x"))
        paths = ("/api/status", "/metrics", "/api/logs/a", "/v1/models")
        seen = [wrong.body.decode(), *[(await served.get(path, headers=right)).text for path in paths]]
        child = psutil.Process(served.row("a")["pid"])
        for process in (child, *child.children(recursive=True)):
            assert alive(process.pid)
            seen += [*process.cmdline(), *process.environ().values()]
    seen += [file.read_text() for file in (tmp_path / "state").rglob("*") if file.is_file()]
    seen += list(capfd.readouterr())
    assert len("".join(seen)) > 1000
    assert key not in "".join(seen)
    assert prompt not in "".join(seen)


@pytest.mark.fault(43)
@pytest.mark.one_in(2)
async def test_names_that_clients_invent_make_no_new_series(
    wire: Wire, served: Served, measured: Measured
) -> None:
    """10,000 of them over both transports, models and paths, one after the other."""
    await served.ask("nope")
    await served.get("/nope")
    before = set(await served.metrics())
    began = time.monotonic()
    async with wire.connect(served) as models, wire.connect(served) as paths:
        models.send(b"".join(wire.chat(model=f"nope-{number}") for number in range(2500)))
        paths.send(
            b"".join(wire.request(b"", method="GET", path=f"/v1/nope-{number}") for number in range(2500))
        )
        answers: list[RawAnswer] = []
        for connection in (models, paths):
            answers += [await connection.answer() for _ in range(2500)]
    measured(time.monotonic() - began)
    assert {answer.status for answer in answers} == {404}
    assert set(await served.metrics()) == before
