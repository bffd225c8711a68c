"""Makes text from others fit for a terminal: nothing in it controls it, and what the encoding lacks is replaced."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Mapping
from typing import Any

from draftd.telemetry.lines import escape

_STEERING = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LOOKALIKES = {"–": "-", "—": "-", "…": "...", "→": "->", "≤": "<=", "✓": "+", "✗": "x", "·": "-", "×": "x"}
_LOOKALIKES |= {"‘": "'", "’": "'", "“": '"', "”": '"'}
_TABLE = str.maketrans(_LOOKALIKES)
_PLAIN = "draftd.plain"  # the name of an error handler for what an encoding lacks


def harmless(text: str) -> str:
    """`text` with all that could control a terminal escaped. Its line breaks and tabs stay."""
    return "\n".join(map(escape, text.replace("\r\n", "\n").split("\n")))


def harmless_in_a_pipe(text: str) -> str:
    """`text` as it is, except for what would control a terminal at the end of the pipe."""
    return _STEERING.sub(lambda found: escape(found[0]), text)


def harmless_body(value: Any) -> Any:
    """A JSON value with all of its strings harmless, each in one line: a name cannot fake a line of its own."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: harmless_body(each) for key, each in value.items()}
    return [harmless_body(each) for each in value] if isinstance(value, list | tuple) else value


def take_every_text() -> None:
    """Let stdout and stderr take any text: characters that their encoding lacks are replaced by similar ones."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)


def _lookalike(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_TABLE)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(_PLAIN, _lookalike)
