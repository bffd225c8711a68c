"""Errors about a translated request name the field that its client sent."""

from __future__ import annotations

import pytest

from draftd.errors import DraftdError, RequestError, WorkerError
from draftd.web.dialects.own_names import in_own_names

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"


@pytest.mark.parametrize(
    ("path", "param", "said", "own", "told"),
    [
        (MESSAGES, "stop", "stop must be short", "stop_sequences", "stop_sequences must be short"),
        (
            MESSAGES,
            "response_format",
            "response_format: no",
            "output_config.format",
            "output_config.format: no",
        ),
        (
            RESPONSES,
            "response_format.json_schema.schema",
            "response_format.json_schema.schema must be an object",
            "text.format.schema",
            "text.format.schema must be an object",
        ),
        (
            RESPONSES,
            "reasoning_effort",
            "no reasoning_effort 'x'",
            "reasoning.effort",
            "no reasoning.effort 'x'",
        ),
        (RESPONSES, "messages", "the prompt is too long", "input", "the prompt is too long"),
        (MESSAGES, "messages", "the prompt is too long", "messages", "the prompt is too long"),
        (RESPONSES, "tools", "tools: no response_format", "tools", "tools: no response_format"),
        ("/v1/chat/completions", "stop", "stop must be short", "stop", "stop must be short"),
        (
            MESSAGES,
            "stop",
            "a nonstop text; stop ends",
            "stop_sequences",
            "a nonstop text; stop_sequences ends",
        ),
    ],
)
def test_a_field_has_the_name_that_the_client_knows(
    path: str, param: str, said: str, own: str, told: str
) -> None:
    found = in_own_names(RequestError(400, said, kind="k", code="c", param=param), path)
    assert isinstance(found, RequestError)
    assert (found.status, found.kind, found.code, found.param, str(found)) == (400, "k", "c", own, told)


@pytest.mark.parametrize(
    "error",
    [
        RequestError(400, "there is no field 'stop'", code="unknown_parameter", param="stop"),
        RequestError(400, "stop"),
        WorkerError("stop"),
        DraftdError("stop"),
    ],
)
def test_other_errors_stay_as_they_are(error: DraftdError) -> None:
    assert in_own_names(error, MESSAGES) is error
