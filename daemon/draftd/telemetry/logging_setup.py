"""Sets up the daemon's own log: one line per event, for machines or for people, without anybody's secrets.

structlog goes through the standard library's logging, so that what asyncio and aiohttp say comes out the same way.
"""

import io
import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from draftd.telemetry.lines import escape

Format = Literal["auto", "json", "console"]

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
    fmt: Format = "auto", level: str = "info", stream: TextIO | io.TextIOBase | None = None
) -> None:
    """Send structlog and the standard library's logging to `stream` (stderr), in place of an earlier call's.

    "auto" is "console" on a terminal, else "json". Times are ISO 8601 in UTC. Colours only on a terminal and
    without NO_COLOR. Raises ValueError for an unknown level.
    """
    out = stream or sys.stderr
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=_rendering(fmt, out))
    )
    root = logging.getLogger()
    root.handlers[:] = [old for old in root.handlers if not isinstance(old, _Handler)] + [handler]
    root.setLevel(number)


def _rendering(fmt: Format, out: TextIO | io.TextIOBase) -> list[Processor]:
    # format_exc_info, never the renderers' own tracebacks: those show local variables, and so prompts.
    first: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
    ]
    if fmt == "json" or (fmt == "auto" and not out.isatty()):
        return [*first, structlog.processors.JSONRenderer()]
    colors = out.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.plain_traceback
    return [*first, printable, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


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
    return "\n".join(map(escape, value.split("\n"))) if key in {"exception", "stack"} else escape(value)
