"""Errors that workers answer, in the forms that servers have for them, as errors for the client. Pure.

The client should see a worker's status, type, code and words: 413 does not mean what 502 means. Three things are
not passed on as they are. When the worker refuses draftd itself (401, 403, 407), that does not concern the client,
whose key the worker never sees. A 500 would say that draftd has a fault. And mlx_lm.server says 404 for whatever
goes wrong while it reads a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from draftd.errors import DraftdError, RequestError, WorkerError

RETRY_AFTER = 1.0  # seconds, for a worker that is busy and does not say for how long
MAX_RETRY_AFTER = 7 * 86400.0  # seconds
MAX_PLAIN = 500  # characters of an error that is not JSON: more is a page for people
_BUSY = {429, 503}
_KEY_WANTED = {401, 403, 407}
_CODES = {503: "worker_unavailable"}
_BY_TYPE = {"invalid_request_error": 400, "rate_limit_error": 429, "overloaded_error": 503}


@dataclass(frozen=True, slots=True)
class Said:
    """What an error's body says. `plain` tells that its error is a text and nothing more."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None
    plain: bool = False

    def status(self) -> int:
        """The HTTP status of an error that came without one, in or in place of an answer with status 200."""
        if self.code is not None and self.code.isdecimal() and 400 <= int(self.code[:4]) < 600:
            return int(self.code)
        return _BY_TYPE.get(self.type or "", 502)


def error_in(body: dict[str, Any]) -> DraftdError:
    """The error that stands in place of an answer or of one of its chunks (see `answer_models.is_error`)."""
    said = _said(body)
    return _error(said.status(), said, said.message or "the worker answered with an error that says nothing")


def refusal(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> DraftdError:
    """The error for an answer with another status than 2xx. The names of its headers are in lower case; `now` is in
    epoch seconds.
    """
    try:
        said = _said(json.loads(raw.decode("utf-8-sig", "replace")))
    except (ValueError, RecursionError):
        said = Said(_plain(status, raw))
    if status == 404 and said.plain:
        status = 400
    wait = _seconds(headers.get("retry-after"), now)
    retry = headers.get("x-should-retry") != "false"
    return _error(
        status, said, said.message or f"the worker answered with status {status}", wait, retry=retry
    )


def _error(
    status: int, said: Said, message: str, wait: float | None = None, *, retry: bool = True
) -> DraftdError:
    """`wait` is the number of seconds after which to try again."""
    if "generation thread died" in message:
        return WorkerError("the worker's generation thread died", status=502, code="worker_lost")
    if status in _KEY_WANTED:
        text = f"the worker wants a key that draftd does not have (status {status}): {message}"
        return WorkerError(text, status=502, code="worker_refused")
    if wait is None and status in _BUSY:
        wait = RETRY_AFTER
    if 400 <= status < 500 and wait is None and retry:
        return RequestError(status, message, kind=said.type, code=said.code, param=said.param)
    if status == 500 or not 400 <= status < 600:
        status = 502
    return WorkerError(
        message,
        status=status,
        kind=said.type,
        code=said.code or _CODES.get(status, "bad_answer" if status > 500 else None),
        param=said.param,
        retry_after=wait,
        retry=retry,
    )


def _said(body: Any) -> Said:
    """OpenAI's form, and those of vLLM, FastAPI, text-generation-inference, and mlx_lm.server."""
    if not isinstance(body, dict):
        return Said()
    error = body.get("error")
    if error is None:
        error = body.get("detail", body)
    while isinstance(error, dict) and error.get("error"):
        error = error["error"]
    if not isinstance(error, dict):
        kind, code = _text(body.get("error_type")), _text(body.get("code"))
        return Said(_words(error), kind, code, plain=kind is None and "error" in body)
    message = next((text for name in ("message", "msg", "detail") if (text := _text(error.get(name)))), "")
    return Said(message, _text(error.get("type")), _text(error.get("code")), _text(error.get("param")))


def _words(error: Any) -> str:
    """An error that is not an object: its text, or what FastAPI says about the fields of a request."""
    if isinstance(error, str):
        return error
    if isinstance(error, list) and error and all(isinstance(one, dict) and "msg" in one for one in error):
        places = [".".join(str(step) for step in _list(one.get("loc"))) for one in error]
        return "; ".join(f"{place}: {one['msg']}" for place, one in zip(places, error, strict=True))
    return str(error)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """A text; a number as text, since OpenAI's codes are texts. Anything else says nothing."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int and abs(value) < 10**9 else None


def _plain(status: int, raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip()
    if not text or len(text) > MAX_PLAIN or text.startswith("<"):
        return ""
    return f"the worker answered with status {status}: {text}"


def _seconds(value: str | None, now: float) -> float | None:
    """Retry-After, which is a number of seconds or a date; None if it is missing or makes no sense."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    return min(seconds, MAX_RETRY_AFTER) if seconds >= 0 else None


def stopping() -> WorkerError:
    """The error for a request that gets no answer, or only a part of it, because the daemon ends."""
    return WorkerError("draftd is stopping", code="stopping", retry_after=5)
