"""Errors in Anthropic's form. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from draftd.errors import DraftdError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from draftd.web.error_bodies import status_of

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_NUMBER = re.compile(r"\d+")


def error_body(error: DraftdError, request_id: str) -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
    status = status_of(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": _words(error)}, "request_id": request_id}


def error_event(error: DraftdError, request_id: str) -> bytes:
    """The error as the last event of a stream that has begun."""
    return b"event: error\ndata: " + json.dumps(error_body(error, request_id)).encode() + b"\n\n"


def _words(error: DraftdError) -> str:
    """The error's text. Claude Code shortens a conversation only when it reads exactly these words."""
    numbers = _NUMBER.findall(str(error))
    if getattr(error, "code", None) == CONTEXT_LENGTH_EXCEEDED and len(numbers) >= 2:
        return f"prompt is too long: {numbers[0]} tokens > {numbers[1]} maximum"
    return str(error)
