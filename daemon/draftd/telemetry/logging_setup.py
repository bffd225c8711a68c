"""Sets up the daemon's own log: one line per event, for machines or for people, without anybody's secrets.

structlog goes through the standard library's logging, so that what asyncio and aiohttp say comes out the same way.
"""

import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from draftd.telemetry.lines import escape
from draftd.telemetry.told import Told, of_event

Format = Literal["json", "console"]
Tell = Callable[[Told], None]

REDACTED = "[redacted]"
_CREDENTIALS = {
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "api_key",
    "apikey",
    "x_api_key",
}
_SECRET = _CREDENTIALS | {
    "token",
    "access_token",
    "password",
    "secret",
    "body",
    "content",
    "messages",
    "prompt",
}
_MAX_DEPTH = 6


class _Handler(logging.StreamHandler[TextIO | io.TextIOBase]):
    """A stream handler that keeps quiet when the disk is full or nobody reads stderr any more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def configure(
    fmt: Format = "json", level: str = "info", stream: TextIO | io.TextIOBase | None = None
) -> None:
    """Send structlog and the standard library's logging to `stream`, in place of an earlier call's; None: nowhere
    but to what `telling` was given.

    One line per event: "json" with times in ISO 8601 in UTC, "console" in words for people, with the time of day.
    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_COMMON,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [old for old in root.handlers if not isinstance(old, _Handler)]
    root.setLevel(number)
    if stream is not None:
        handler = _Handler(stream)
        handler.setFormatter(_formatter(structlog.processors.JSONRenderer() if fmt == "json" else _in_words))
        root.addHandler(handler)


class _Telling(logging.Handler):
    """Hands each event on in words for people."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell
        self.setFormatter(_formatter(self._take))

    def _take(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        self._tell(of_event(event, time.time()))
        return ""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises for what cannot be written."""
        try:
            self.format(record)
        except OSError:
            pass
        except Exception:
            self.handleError(record)


@contextmanager
def telling(tell: Tell, level: str = "info") -> Iterator[None]:
    """Hand each event of at least `level` to `tell`, in words for people, while the block runs.

    `tell` is called in the thread in which the event happens.
    """
    handler = _Telling(tell)
    handler.setLevel(level.upper())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _formatter(last: Processor) -> logging.Formatter:
    # format_exc_info, never a renderer's own tracebacks: those show local variables, and so prompts.
    first: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        *([] if isinstance(last, structlog.processors.JSONRenderer) else [printable]),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_COMMON, processors=[*first, last])


def _in_words(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return str(of_event(event, time.time()))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of keys that may hold prompts or credentials, at any depth.

    This is a second line of defence: nobody should log these at all. Case and hyphens do not matter.
    """
    return {key: _clean(key, value, 0) for key, value in event.items()}


def _clean(key: object, value: object, depth: int) -> object:
    if isinstance(key, str) and key.lower().replace("-", "_") in _SECRET:
        return REDACTED
    if isinstance(value, Mapping):
        return REDACTED if depth >= _MAX_DEPTH else {k: _clean(k, v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if depth >= _MAX_DEPTH:
            return REDACTED
        items = [_clean(None, item, depth + 1) for item in value]
        return tuple(items) if isinstance(value, tuple) else items  # exc_info must stay a tuple
    return value


def printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what could drive a terminal or fake a line, in a model name that a client made up, for example."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: object) -> object:
    if not isinstance(value, str):
        return value  # shown by its repr
    whole = key in {"exception", "stack"}
    return "\n".join(map(escape, value.split("\n"))) if whole else escape(value)


_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    redact,
]
