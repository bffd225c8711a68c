"""Errors as OpenAI's clients expect them. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from draftd.errors import ConfigError, DraftdError, RequestError, WorkerError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def status_of(error: DraftdError) -> int:
    """The HTTP status for an error."""
    if isinstance(error, RequestError | WorkerError):
        return error.status
    return 400 if isinstance(error, ConfigError) else 500


def error_body(error: DraftdError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    status = status_of(error)
    kind = getattr(error, "kind", None)
    kind = kind or _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    fields = {
        "message": str(error),
        "type": kind,
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return {"error": fields}


def error_headers(error: DraftdError) -> dict[str, str]:
    """Retry-After in whole seconds, and OpenAI's `x-should-retry: false` where trying again cannot help."""
    headers: dict[str, str] = {}
    if isinstance(error, WorkerError):
        if error.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(error.retry_after))
        if not error.retry:
            headers["x-should-retry"] = "false"
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def error_event(error: DraftdError) -> bytes:
    """The error as the last event of a stream that has begun."""
    return b"data: " + json.dumps(error_body(error)).encode() + b"\n\n"
