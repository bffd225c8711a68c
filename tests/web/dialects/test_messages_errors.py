"""Errors as Anthropic's clients expect them."""

from __future__ import annotations

import json

import pytest

from draftd.engine.context_limit import tokens_left
from draftd.engine.refusals import RefusedRequestError
from draftd.errors import DraftdError, RequestError, WorkerError
from draftd.web.dialects.messages_errors import error_body, error_event


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError(400, "x"), "invalid_request_error"),
        (RequestError(401, "x"), "authentication_error"),
        (RequestError(403, "x"), "permission_error"),
        (RequestError(404, "x"), "not_found_error"),
        (RequestError(413, "x"), "request_too_large"),
        (RequestError(415, "x"), "invalid_request_error"),
        (WorkerError("x", status=429), "rate_limit_error"),
        (WorkerError("x"), "overloaded_error"),
        (WorkerError("x", status=502), "api_error"),
        (DraftdError("x"), "api_error"),
    ],
)
def test_the_type_says_who_is_at_fault(error: DraftdError, kind: str) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "id"}
    assert error_body(error, "id") == body
    event, data = error_event(error, "id").split(b"\n", 1)
    assert event == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == body


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_make_claude_code_shorten_it() -> None:
    with pytest.raises(RefusedRequestError) as caught:
        tokens_left(68_010, 5, 32_768)
    error = RequestError(400, str(caught.value), code=caught.value.code)
    assert "this model's maximum context length is" in str(
        error
    )  # OpenAI's words: LiteLLM and aider look for them
    message = error_body(error, "id")["error"]["message"]
    assert message == "prompt is too long: 68010 tokens > 32768 maximum"
