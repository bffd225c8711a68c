"""opencode: the config that is made, and what becomes of the user's file."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from draftd.errors import ConfigError
from draftd.ops.connect.jsonc import parse
from draftd.ops.connect.offer import Offer, OfferedModel
from draftd.ops.connect.opencode import change, config_file, opencode_config, write

MODELS = [
    OfferedModel("balanced", 5, 32768),
    OfferedModel("fast", 3, 32768),
    OfferedModel("max", 7, 4096),
    OfferedModel("plain", 0, 8192),
    OfferedModel("copying", 0, 8192, lookup=True),
]
URL = "http://127.0.0.1:8080/v1"
OFFER = Offer(MODELS, "balanced", URL)
NOW = datetime(2026, 11, 23, 17, 0, 0)

OWN = """\
// mine
{
  "$schema": "https://opencode.ai/config.json",
  "theme": "dark", // at night
  /* "model": "not/this", */
  "model": "other/one",
  "provider": {
    "other": {"options": {"apiKey": "{env:OTHER}"}}, // paid
    "speculative": {
      "options": {
        "baseURL": "http://127.0.0.1:1/v1", // old
        "timeout": 600000,
      },
    },
  },
  "mcp": {},
}
"""


def test_the_config_names_every_model_with_its_limits() -> None:
    made = opencode_config(OFFER)
    provider = made["provider"]["speculative"]
    assert made["model"] == "speculative/balanced"
    assert made["small_model"] == "speculative/fast"
    assert provider["options"] == {"baseURL": URL, "apiKey": "local"}
    assert {name: entry["limit"] for name, entry in provider["models"].items()} == {
        "balanced": {"context": 32768, "output": 8192},
        "fast": {"context": 32768, "output": 8192},
        "max": {"context": 4096, "output": 1024},
        "plain": {"context": 8192, "output": 2048},
        "copying": {"context": 8192, "output": 2048},
    }
    assert [entry["name"] for entry in provider["models"].values()] == [
        "balanced (5 draft tokens)",
        "fast (3 draft tokens)",
        "max (7 draft tokens)",
        "plain (no drafting)",
        "copying (drafts by lookup)",
    ]
    assert all(entry["tool_call"] for entry in provider["models"].values())


def test_a_key_is_named_and_not_written_out() -> None:
    options = opencode_config(replace(OFFER, needs_key=True))["provider"]["speculative"]["options"]
    assert options["apiKey"] == "{env:DRAFTD_API_KEY}"


def test_without_drafting_the_small_model_is_still_one_of_them() -> None:
    assert opencode_config(Offer([MODELS[3]], "plain", URL))["small_model"] == "speculative/plain"


def test_the_file_is_the_one_that_opencode_reads_last(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    folder = tmp_path / "opencode"
    folder.mkdir()
    assert config_file(environ) == folder / "opencode.json"
    (folder / "opencode.json").touch()
    assert config_file(environ) == folder / "opencode.json"
    (folder / "opencode.jsonc").touch()
    assert config_file(environ) == folder / "opencode.jsonc"
    assert config_file(environ | {"OPENCODE_CONFIG": "/x/y.json"}) == Path("/x/y.json")
    assert config_file({}) == Path.home() / ".config" / "opencode" / "opencode.json"


def test_a_merge_keeps_what_is_the_users(tmp_path: Path) -> None:
    file = tmp_path / "opencode.jsonc"
    file.write_text(OWN)
    config = opencode_config(OFFER)
    changed = change(file, config)
    backup = write(changed, NOW)
    text = file.read_text()
    for kept in (
        "// mine",
        "// at night",
        '/* "model": "not/this", */',
        "// paid",
        "// old",
        '"timeout": 600000',
    ):
        assert kept in text
    made, old = parse(text), parse(OWN)
    assert made["provider"]["other"] == old["provider"]["other"]
    assert (made["theme"], made["mcp"], made["model"]) == ("dark", {}, "speculative/balanced")
    assert made["provider"]["speculative"]["models"] == config["provider"]["speculative"]["models"]
    assert backup is not None
    assert backup.read_text() == OWN
    assert change(file, config).diff() == []


def test_the_diff_shows_what_changes_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "opencode.jsonc"
    file.write_text(OWN)
    diff = change(file, opencode_config(OFFER)).diff()
    removed = [line for line in diff[2:] if line.startswith("-")]
    assert removed == ['-  "model": "other/one",', '-        "baseURL": "http://127.0.0.1:1/v1", // old']
    assert diff[0] == f"--- {file}"


def test_a_missing_file_is_made_with_its_folders(tmp_path: Path) -> None:
    file = tmp_path / "a" / "opencode.json"
    config = opencode_config(OFFER)
    assert write(change(file, config), NOW) is None
    assert json.loads(file.read_text()) == config
    assert [path.name for path in file.parent.iterdir()] == ["opencode.json"]


def test_a_link_and_a_mode_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o600)
    file = tmp_path / "opencode.json"
    file.symlink_to(real)
    write(change(file, {"a": 1}), NOW)
    assert file.is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}
    assert real.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{\n"a": }', ":2: a value is expected"),
        (b"[]", ":1: it must hold an object"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_what_cannot_be_read_is_told_and_left_alone(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "opencode.json"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="OpenCode's config cannot be changed") as caught:
        change(file, {"a": 1})
    assert reason in str(caught.value)
    assert file.read_bytes() == data


def test_a_byte_order_mark_stays(tmp_path: Path) -> None:
    file = tmp_path / "opencode.json"
    file.write_bytes(b'\xef\xbb\xbf{"theme": "x"}\n')
    changed = change(file, {"model": "m"})
    assert changed.after.startswith("\ufeff{")
    assert json.loads(changed.after.removeprefix("\ufeff")) == {"theme": "x", "model": "m"}


@pytest.mark.fault(73)
def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "opencode.json")
    with pytest.raises(ConfigError, match="it is a named pipe"):
        change(tmp_path / "opencode.json", {"model": "m"})


def test_a_file_that_cannot_be_written_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "opencode.json"
    file.write_text("{}")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write(change(file, {"a": 1}), NOW)
    assert file.read_text() == "{}"
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".bak"}
