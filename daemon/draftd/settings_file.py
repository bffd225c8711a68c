"""The settings file: where it is, what it sets, and where in it a fault is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import platformdirs
from pydantic_settings import PydanticBaseSettingsSource

from draftd.errors import ConfigError, Problem
from draftd.files import MAX_CONFIG, read_text
from draftd.toml_lines import fault_of, line_of, nul_in, read_toml

TABLES = frozenset({"cache", "discovery", "groups"})  # of the settings file


def config_dir() -> Path:
    """The user's config folder: holds draftd.toml, profiles/ and prompts/."""
    return platformdirs.user_config_path("draftd")


def settings_file() -> Path:
    """The settings file: DRAFTD_CONFIG, or draftd.toml in the config folder."""
    named = os.environ.get("DRAFTD_CONFIG")
    return Path(os.path.expanduser(named)) if named else config_dir() / "draftd.toml"


class FileSource(PydanticBaseSettingsSource):
    """The settings file; a missing one sets nothing."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # pydantic-settings asks for it, but __call__ reads the file as a whole

    def __call__(self) -> dict[str, Any]:
        path = settings_file()
        try:
            text = read_text(path, most=MAX_CONFIG)
        except FileNotFoundError:
            if os.environ.get("DRAFTD_CONFIG"):
                raise ConfigError(f"the settings file {path} (from DRAFTD_CONFIG) does not exist") from None
            return {}
        except OSError as error:
            raise _unreadable(path, None, error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise _unreadable(path, None, "the file is not UTF-8 text") from error
        try:
            found = read_toml(text)
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, *fault_of(text, error)) from error
        if (nul := nul_in(found)) is not None:
            loc, reason = nul
            raise _unreadable(path, line_of(text, loc), f"{'.'.join(map(str, loc[:1]))}: {reason}")
        return _flat(found)


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """The file's settings: `[cache] disk` is `cache_disk`, and so it is with `[groups]`."""
    flat: dict[str, Any] = {}
    for name, value in found.items():
        table = value if name in TABLES and isinstance(value, dict) else {"": value}
        flat |= {f"{name}_{key}" if key else name: inner for key, inner in table.items()}
    return flat


def _unreadable(path: Path, line: int | None, reason: str) -> ConfigError:
    return ConfigError("the settings file cannot be read", (Problem(path, line, reason),))


def _as_in(table: str, reason: str) -> str:
    """The reason with the keys of a table as they stand in the file: `cache.disk` for `cache_disk`."""
    return re.sub(rf"(?<![\w/]){table}_(?=\w)", f"{table}.", reason)


def source_of(name: str, reason: str, loc: tuple[Any, ...] = ()) -> Problem:
    """A fault of a setting that came from a variable or the file; `loc` is its place in the file, if not `name`."""
    variable = f"DRAFTD_{name.upper()}"
    if any(key.upper() == variable and value for key, value in os.environ.items()):
        return Problem(Path(variable), None, reason)
    path = settings_file()
    try:
        text = read_text(path)
        line = line_of(text, loc or (name,))
        table, _, key = name.partition("_")
        if line is None and table in TABLES:
            return Problem(path, line_of(text, (table, key)), _as_in(table, reason))
        return Problem(path, line, reason)
    except (OSError, UnicodeDecodeError):  # it has just gone
        return Problem(path, None, reason)
