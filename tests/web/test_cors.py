"""Pages of other web origins: those in the settings may ask with a key and read answers, in a real browser too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web

from draftd.errors import ConfigError
from draftd.web.cors import EXPOSED, answer_headers, is_preflight, origin_of
from tests.harness import Served, fake, free_ports, serving
from tests.web.raw_http import Wire

if TYPE_CHECKING:
    from playwright.async_api import Browser

in_one_loop = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "http://app.test"
ASKS = (f"Origin: {ORIGIN}", "Access-Control-Request-Method: POST")
KEY = "Authorization: Bearer secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    async with serving(folder, {"a": fake()}, allowed_origins=(ORIGIN,), api_key="secret") as running:
        yield running


@pytest.mark.fault(75)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/api/status", "/not/there"])
@in_one_loop
async def test_a_preflight_needs_no_key_and_allows_what_is_asked(
    wire: Wire, served: Served, path: str
) -> None:
    names = "authorization, content-type, x-stainless-lang"
    asked = wire.request(
        b"", *ASKS, f"Access-Control-Request-Headers: {names}", method="OPTIONS", path=path, kind=""
    )
    answer = await wire.ask(served, asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == names
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-private-network" not in answer.headers
    assert "Access-Control-Request-Headers" in answer.headers["vary"]


@pytest.mark.fault(75)
@pytest.mark.parametrize("stream", [False, True])
@in_one_loop
async def test_the_page_may_read_answers_and_their_headers(wire: Wire, served: Served, stream: bool) -> None:
    answer = await wire.ask(served, wire.chat("hi", ASKS[0], KEY, stream=stream))
    assert answer.status == 200
    refused = await wire.ask(served, wire.chat("hi", ASKS[0], stream=stream))
    assert refused.status == 401
    for one in (answer, refused):
        assert one.headers["access-control-allow-origin"] == ORIGIN
        assert one.headers["access-control-expose-headers"] == EXPOSED
        assert one.headers["vary"] == "Origin"
    assert {"x-request-id", "x-draftd-profile"} <= {name.strip().lower() for name in EXPOSED.split(",")}


@pytest.mark.fault(40, 72)
@in_one_loop
async def test_a_preflight_of_anybody_else_gets_nothing(wire: Wire, served: Served) -> None:
    foreign = wire.request(b"", "Origin: http://evil.test", ASKS[1], method="OPTIONS")
    no_origin = wire.request(b"", ASKS[1], method="OPTIONS")
    no_method = wire.request(b"", ASKS[0], method="OPTIONS")
    foreign_host = wire.request(b"", *ASKS, method="OPTIONS", host="evil.test")
    for asked, status in ((foreign, 403), (no_origin, 401), (no_method, 401), (foreign_host, 403)):
        answer = await wire.ask(served, asked)
        assert answer.status == status
        assert "access-control-allow-headers" not in answer.headers
        assert "vary" in answer.headers


def test_what_a_browser_asks_before_a_page_of_the_internet_is_answered() -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    network = asked | {"Access-Control-Request-Private-Network": "true"}
    name = "Access-Control-Allow-Private-Network"
    assert name not in answer_headers("OPTIONS", asked, {ORIGIN})
    assert answer_headers("OPTIONS", network, {ORIGIN})[name] == "true"
    assert name not in answer_headers("OPTIONS", network | {"Origin": "http://evil.test"}, {ORIGIN})
    assert is_preflight("OPTIONS", network, {ORIGIN})
    assert not is_preflight("GET", network, {ORIGIN})


@pytest.mark.parametrize("names", ["a b", "a,", "x\r\nEvil: 1", "", 'a"b', "ü"])
def test_what_is_no_list_of_names_is_not_repeated(names: str) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    made = answer_headers("OPTIONS", asked | {"Access-Control-Request-Headers": names}, {ORIGIN})
    assert "Access-Control-Allow-Headers" not in made


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://Localhost:3000/", "http://localhost:3000"),
        ("https://app.test:443", "https://app.test"),
        ("http://app.test:80", "http://app.test"),
        ("https://app.test:80", "https://app.test:80"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
    ],
)
def test_an_origin_is_understood_as_people_write_it(text: str, origin: str) -> None:
    assert origin_of(text) == origin


@pytest.mark.parametrize(
    "text", ["*", "localhost:3000", "app.test", "http://app.test/chat", "http://*.test", ""]
)
def test_what_no_browser_sends_as_an_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="web origin"):
        origin_of(text)


PAGE = """async ([url, stream]) => {
    const answer = await fetch(url + "/v1/chat/completions", {
        method: "POST",
        headers: {Authorization: "Bearer secret", "Content-Type": "application/json", "X-Stainless-Lang": "js"},
        body: JSON.stringify({model: "a", stream, messages: [{role: "user", content: "hi"}]}),
    });
    const text = await answer.text();
    return [answer.status, text, answer.headers.get("x-request-id"), answer.headers.get("x-draftd-profile")];
}"""


@pytest.mark.real
@pytest.mark.fault(75)
@in_one_loop
async def test_a_page_of_another_origin_uses_the_daemon_in_a_real_browser(
    browser: Browser, tmp_path: Path
) -> None:
    async def empty(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", empty)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    page = await browser.new_page()
    port = free_ports()
    origins = (f"http://localhost:{port}/",)
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with serving(tmp_path, {"a": fake()}, allowed_origins=origins, api_key="secret") as served:
            await page.goto(f"http://localhost:{port}/")
            for stream in (False, True):
                status, text, request_id, name = await page.evaluate(PAGE, [served.url, stream])
                assert (status, len(request_id), name) == (200, 32, "a")
                assert ("[DONE]" if stream else '"chat.completion"') in text
            await page.goto(f"http://127.0.0.1:{port}/")  # the same server by another name is another origin
            with pytest.raises(Exception, match="Failed to fetch"):
                await page.evaluate(PAGE, [served.url, False])
    finally:
        await page.close()
        await runner.cleanup()
