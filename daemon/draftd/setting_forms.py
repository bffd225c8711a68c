"""How values of settings may be written: as TOML has them in the settings file, as text in a variable."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr
from pydantic_settings import NoDecode

from draftd.files import absolute
from draftd.groups import Names, checked, lists_of
from draftd.peer_tables import PeerTable, distinct
from draftd.profile_tables import MAX_BYTES, Duration
from draftd.settings_file import settings_file


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        each = '{"url": "http://mini.local:8080"}'
        raise ValueError(
            f"in the file each is a [[peers]] table, in a variable they are JSON: [{each}]"
        ) from None


def no_bool(value: object) -> object:
    """Raises ValueError for true and false, which would be read as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return value


def not_empty(value: object) -> object:
    """Raises ValueError for "": a path would be the folder that one happens to be in, a key one that all know."""
    if value == "":
        raise ValueError("it must not be empty; leave the key out for none")
    return value


# A name, or an address: an IPv6 one may have brackets, as in a URL. `web/guard.py` compares a Host header with it.
_HOST_NAME = re.compile(r"[\w.~-]+|(?P<open>\[)?[0-9A-Fa-f:.]+(?:%[\w.~-]+)?(?(open)\])", re.ASCII)


def _host_names(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not _HOST_NAME.fullmatch(word):
            raise ValueError(
                f"{word} is not the name of a host alone, such as mini.local: no scheme, no port, no '*'"
            )
    return tuple(word.strip("[]") for word in words)


def _own_key(key: SecretStr) -> SecretStr:
    """The key that clients must send."""
    text = key.get_secret_value()
    if text and not (text.strip() and text.strip().isprintable()):
        raise ValueError("a key is a line of characters that can be printed, and not of spaces alone")
    return SecretStr(text.strip())


def _beside_settings(path: Path) -> Path:
    return absolute(settings_file().parent / path.expanduser())


Seconds = Annotated[Duration, Field(allow_inf_nan=False)]
Size = Annotated[ByteSize, BeforeValidator(no_bool), Field(le=MAX_BYTES)]
UserPath = Annotated[Path, BeforeValidator(not_empty), AfterValidator(absolute)]
Words = Annotated[
    tuple[str, ...],
    NoDecode,  # "a,b" in a variable, a list in the file
    BeforeValidator(
        lambda value: tuple(value.replace(",", " ").split()) if isinstance(value, str) else value
    ),
]
HostNames = Annotated[Words, AfterValidator(_host_names)]
OwnKey = Annotated[SecretStr, BeforeValidator(not_empty), AfterValidator(_own_key)]
Peers = Annotated[
    tuple[PeerTable, ...],
    NoDecode,  # tables in the file, JSON in a variable
    BeforeValidator(lambda value: _json(value) if isinstance(value, str) else value),
    AfterValidator(distinct),
]
NameLists = Annotated[
    tuple[Names, ...],
    NoDecode,  # "a, b; c, d" in a variable, lists of lists in the file
    BeforeValidator(lambda value: lists_of(value) if isinstance(value, str) else value),
    AfterValidator(lambda lists: checked(lists, 1)),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
PromptPaths = Annotated[
    tuple[Annotated[Path, AfterValidator(_beside_settings)], ...],
    NoDecode,  # "a.txt, b.txt" in a variable, a list in the file
    BeforeValidator(
        lambda value: [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    ),
]
