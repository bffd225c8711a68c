"""Errors as OpenAI's clients expect them: body, status, headers, event."""

import json

import pytest

from draftd.errors import AlreadyRunningError, ConfigError, DraftdError, RequestError, WorkerError
from draftd.web.error_bodies import error_body, error_event, error_headers, status_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RequestError(400, "no"), 400, "invalid_request_error"),
        (RequestError(401, "no"), 401, "authentication_error"),
        (RequestError(403, "no"), 403, "permission_error"),
        (RequestError(404, "no"), 404, "not_found_error"),
        (RequestError(413, "no"), 413, "invalid_request_error"),
        (RequestError(415, "no"), 415, "invalid_request_error"),
        (WorkerError("no", status=429), 429, "rate_limit_error"),
        (WorkerError("no", status=502), 502, "server_error"),
        (WorkerError("no"), 503, "server_error"),
        (ConfigError("no"), 400, "invalid_request_error"),
        (AlreadyRunningError("no"), 500, "server_error"),
        (DraftdError("no"), 500, "server_error"),
    ],
)
def test_each_error_has_a_status_and_a_body_of_that_kind(error: DraftdError, status: int, kind: str) -> None:
    assert status_of(error) == status
    body = error_body(error)["error"]
    assert body["message"] == "no"
    assert body["type"] == kind


def test_the_body_names_field_and_code() -> None:
    error = RequestError(404, "there is no model 'é'", code="model_not_found", param="model")
    assert error_body(error) == {
        "error": {
            "message": "there is no model 'é'",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert error_body(DraftdError("no"))["error"] == {
        "message": "no",
        "type": "server_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    "error", [RequestError(413, "no", kind="mine"), WorkerError("no", kind="mine", param="p")]
)
def test_a_type_that_is_given_is_kept(error: RequestError | WorkerError) -> None:
    assert error_body(error)["error"]["type"] == "mine"
    assert error_body(error)["error"]["param"] == error.param


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "0"), (0.2, "1"), (1, "1"), (4.01, "5"), (60.0, "60")])
def test_retry_after_is_whole_seconds_and_never_too_short(seconds: float, header: str) -> None:
    assert error_headers(WorkerError("no", retry_after=seconds)) == {"Retry-After": header}


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (WorkerError("no"), {}),
        (WorkerError("no", retry=False), {"x-should-retry": "false"}),
        (RequestError(401, "no"), {"WWW-Authenticate": "Bearer"}),
        (RequestError(403, "no"), {}),
        (DraftdError("no"), {}),
    ],
)
def test_headers_say_whether_and_how_to_come_again(error: DraftdError, headers: dict[str, str]) -> None:
    assert error_headers(error) == headers


def test_an_error_in_a_stream_is_one_event_whatever_the_message_holds() -> None:
    error = WorkerError("first\n\ndata: [DONE]\n\n\ud800é", status=502, code="worker_lost")
    event = error_event(error)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:]) == error_body(error)
