"""Errors of servers of others: their status, type and words reach the client, and none is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from draftd.web.request_body import Endpoint
from tests.harness import Served
from tests.web.foreign import (
    DONE,
    ENDPOINTS,
    HEAD,
    Wire,
    asked,
    chunked,
    events,
    hello,
    in_one_piece,
    said,
    whole,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(65)]


def error_of(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def refused(status: int, body: Any, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


REFUSALS: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "too large": (
        refused(413, error_of(type="too_big", code="c", param="p")), 413,
        {"message": "m", "type": "too_big", "code": "c", "param": "p"},
    ),
    "too large, llama.cpp": (
        refused(400, error_of(code=400, type="exceed_context_size_error", n_ctx=4096)), 400,
        {"message": "m", "type": "exceed_context_size_error", "code": "400", "param": None},
    ),
    "vLLM": (
        refused(404, {"object": "error", "message": "m", "type": "NotFoundError", "param": None, "code": 404}),
        404, {"message": "m", "type": "NotFoundError", "code": "404"},
    ),
    "mlx_lm": (refused(404, {"error": "m"}), 400, {"message": "m", "type": "invalid_request_error"}),
    "FastAPI": (refused(404, {"detail": "Not Found"}), 404, {"message": "Not Found", "type": "not_found_error"}),
    "FastAPI's fields": (
        refused(422, {"detail": [{"loc": ["body", "n"], "msg": "too many", "type": "value_error"}]}), 422,
        {"message": "body.n: too many", "type": "invalid_request_error"},
    ),
    "an error in the detail": (refused(400, {"detail": error_of(type="t")}), 400, {"message": "m", "type": "t"}),
    "TGI": (refused(422, {"error": "m", "error_type": "validation"}), 422, {"message": "m", "type": "validation"}),
    "Anthropic's form": (
        refused(400, {"type": "error", "error": {"type": "t", "message": "m"}}), 400, {"message": "m", "type": "t"},
    ),
    "a text": (
        refused(400, b"no such thing"), 400, {"message": "the worker answered with status 400: no such thing"},
    ),
    "a page": (refused(400, b"<html>no</html>"), 400, {"message": "the worker answered with status 400"}),
    "nothing": (refused(409, b""), 409, {"message": "the worker answered with status 409"}),
    "not UTF-8": (refused(400, b'\xef\xbb\xbf{"error": {"message": "\xff"}}'), 400, {"message": "\ufffd"}),
    "a key": (
        refused(401, error_of("bad key", code="invalid_api_key")), 502,
        {
            "message": "the worker wants a key that draftd does not have (status 401): bad key",
            "code": "worker_refused", "type": "server_error",
        },
    ),
    "forbidden": (refused(403, b""), 502, {"code": "worker_refused"}),
    "its own fault": (refused(500, error_of(type="t", code="c")), 502, {"message": "m", "type": "t", "code": "c"}),
    "its own fault, no words": (refused(500, b""), 502, {"code": "bad_answer"}),
    "not built": (refused(501, error_of(type="not_supported_error")), 501, {"type": "not_supported_error"}),
    "out of time": (refused(504, b"upstream request timeout"), 504, {"type": "server_error"}),
    "overloaded": (refused(529, error_of(type="overloaded_error")), 529, {"type": "overloaded_error"}),
    "elsewhere": (
        refused(307, b"", "Location: /x"), 502,
        {"message": "the worker answered with status 307", "code": "bad_answer"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_keeps_its_status_type_code_and_words(
    foreign: Served, endpoint: Endpoint, stream: bool, case: str
) -> None:
    wire, status, fields = REFUSALS[case]
    answer = await asked(foreign, wire, endpoint, stream=stream)
    assert answer.status == status
    error = answer.json["error"]
    assert error | fields == error
    assert "ended" not in error["message"]
    assert "Retry-After" not in answer.headers
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (429, ("Retry-After: 17",), {"Retry-After": "17"}),
        (429, ("retry-after: 0.4",), {"Retry-After": "1"}),
        (429, (), {"Retry-After": "1"}),
        (429, ("Retry-After: soon",), {"Retry-After": "1"}),
        (429, ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), {"Retry-After": "0"}),
        (429, ("Retry-After: 1e400",), {"Retry-After": "604800"}),
        (503, ("Retry-After: 5",), {"Retry-After": "5"}),
        (503, (), {"Retry-After": "1"}),
        (413, ("Retry-After: 5",), {"Retry-After": "5"}),
        (409, ("x-should-retry: false",), {"x-should-retry": "false"}),
    ],
)
async def test_when_to_come_again_is_passed_on(
    foreign: Served, stream: bool, status: int, headers: tuple[str, ...], told: dict[str, str]
) -> None:
    kind = error_of(type="t", code="rate_limit_exceeded")
    answer = await asked(foreign, refused(status, kind, *headers), "chat.completions", stream=stream)
    assert (answer.status, answer.json["error"]["type"]) == (status, "t")
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    names = ("Retry-After", "x-should-retry")
    assert {name: answer.headers[name] for name in names if name in answer.headers} == told


async def test_hints_before_an_error_do_not_hide_its_headers(foreign: Served) -> None:
    hints = b"HTTP/1.1 103 Hints\r\nRetry-After: 9\r\n\r\n"
    wire = hints + refused(429, error_of(type="t"), "Retry-After: 17")
    answer = await asked(foreign, wire, "chat.completions", stream=False)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "17")


# In place of an answer, though the status is 200.
IN_PLACE: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "JSON": (in_one_piece(json.dumps(error_of(code="c", type="t")).encode()), 502, {"code": "c", "type": "t"}),
    "JSON with a status": (in_one_piece(json.dumps(error_of(code=413)).encode()), 413, {"code": "413"}),
    "JSON, a text": (in_one_piece(b'{"error": "m"}'), 502, {}),
    "JSON, vLLM": (in_one_piece(b'{"object": "error", "message": "m", "code": 400}'), 400, {}),
    "JSON, FastAPI": (in_one_piece(b'{"detail": "m"}'), 502, {}),
    "an event": (HEAD + events(error_of(type="rate_limit_error")) + DONE, 429, {"type": "rate_limit_error"}),
    "an event with a status": (HEAD + events(error_of(code=503, type="unavailable_error")), 503, {}),
    "an event with a key's status": (HEAD + events(error_of(code=401)), 502, {"code": "worker_refused"}),
    "an event of that kind": (HEAD + b"event: error\n" + events(error_of(type="t")), 502, {"type": "t"}),
    "a text of that kind": (HEAD + b"event: error\ndata: m\n\n", 502, {}),
    "a line of that kind": (HEAD + b'error: {"code": 500, "message": "m", "type": "server_error"}\n\n', 502, {}),
    "an event without end": (HEAD + events(error_of(type="t")).rstrip(), 502, {"type": "t"}),
    "an event beside choices": (HEAD + events({"choices": [], **error_of(code="c")}), 502, {"code": "c"}),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", IN_PLACE)
async def test_an_error_in_place_of_an_answer_is_that_error(
    foreign: Served, endpoint: Endpoint, case: str
) -> None:
    wire, status, fields = IN_PLACE[case]
    for stream in (True, False):
        answer = await asked(foreign, wire, endpoint, stream=stream)
        assert answer.status == status, answer.text
        error = answer.json["error"]
        assert error | fields == error
        assert error["message"].endswith("m")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("behind", [DONE, b""])
async def test_an_error_in_mid_stream_keeps_its_type_code_and_words(
    foreign: Served, endpoint: Endpoint, behind: bytes
) -> None:
    begun = HEAD + events(*hello(endpoint)[:2]) + b"\0"
    wire = begun + events(error_of("out of memory", type="oom", code="c", param="p")) + behind
    fields = {"message": "out of memory", "type": "oom", "code": "c", "param": "p"}
    streamed = await asked(foreign, wire, endpoint, stream=True)
    assert streamed.cut
    assert streamed.events[-1] == {"error": fields}
    assert "Hel" in streamed.text
    one = await asked(foreign, wire, endpoint, stream=False)
    assert (one.status, one.json["error"]) == (502, fields)


BROKEN: dict[str, tuple[Wire, str]] = {
    "no answer": (lambda _: b"\0", "broke off before it answered"),
    "no HTTP": (lambda _: b"hello there\r\n\r\n", "is not HTTP"),
    "half": (lambda e: HEAD + events(*hello(e)[:2]), "broke off in the middle"),
    "half an event": (lambda e: HEAD + events(*hello(e)[:2]) + b'data: {"choi', "broke off in the middle"),
    "a broken chunk": (lambda e: chunked(events(*hello(e)[:2]), ends=False) + b"x\r\n", "broke off in the middle"),
    "half of JSON": (lambda e: HEAD + json.dumps(whole(e)).encode()[:-9], "holds no answer"),
    "a page": (lambda _: in_one_piece(b"<html>hi</html>", b"text/html"), "holds no answer"),
    "nothing": (lambda _: in_one_piece(b""), "holds no answer"),
    "other JSON": (lambda _: in_one_piece(b'{"a": 1}'), "JSON that is not an answer"),
    "no reason": (lambda e: HEAD + events(*hello(e)[:2]) + DONE, "no finish_reason"),
    "given up": (lambda e: HEAD + events(*hello(e)[:2], said(e, "", "abort")) + DONE, "gave it up"),
    "a number for a text": (lambda e: HEAD + events(*hello(e)[:1], said(e, 5)), "Expected `str"),  # type: ignore[arg-type]
    "no JSON": (lambda e: HEAD + events(*hello(e)[:1]) + b"data: {oops\n\n" + DONE, "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", BROKEN)
async def test_a_worker_that_lives_is_not_said_to_have_ended(
    foreign: Served, endpoint: Endpoint, case: str
) -> None:
    make, words = BROKEN[case]
    for stream in (True, False):
        answer = await asked(foreign, make(endpoint), endpoint, stream=stream)
        error = answer.events[-1]["error"] if answer.cut else answer.json["error"]
        assert words in error["message"]
        assert "ended" not in error["message"]
        assert error["code"] == "bad_answer"
        assert answer.status == (200 if answer.cut else 502)
        assert "[DONE]" not in answer.text
    assert foreign.state("a") == "ready"
