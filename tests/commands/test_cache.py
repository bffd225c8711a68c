"""`draftd cache`: what is shown of stored prompts, and removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.errors import ConfigError
from draftd.protocol import PROMPT_CACHE_FOLDER, PROMPT_CACHE_MAGIC, PROMPT_CACHE_SUFFIX
from draftd.settings import load_settings


def said(*words: str, columns: int = 300) -> str:
    result = CliRunner().invoke(app, ["cache", *words], prog_name="draftd", env={"COLUMNS": str(columns)})
    assert result.exception is None, result.exception
    return result.stdout


@pytest.fixture
def folder() -> Path:
    made = load_settings().state_dir / PROMPT_CACHE_FOLDER
    made.mkdir(parents=True)
    return made


def store(folder: Path, name: str, header: object, used: float) -> Path:
    text = json.dumps(header).encode()
    path = folder / f"{name}{PROMPT_CACHE_SUFFIX}"
    path.write_bytes(PROMPT_CACHE_MAGIC + len(text).to_bytes(8, "little") + text + bytes(2_000_000))
    os.utime(path, (used, used))
    return path


@pytest.mark.parametrize("verb", ["list", "clear"])
def test_each_verb_has_help_with_an_example(verb: str) -> None:
    assert f" {verb} " in said("--help")
    assert f"Example: draftd cache {verb}" in said(verb, "--help")


def test_stored_prompts_are_listed_the_last_used_first(folder: Path) -> None:
    store(folder, "a", {"tokens": 3000, "model": "org/target", "draft_model": "org/draft"}, 1000.0)
    store(folder, "b", {"tokens": 17, "model": "org/other\x1b[2J", "draft_model": None}, 2000.0)
    store(folder, "c", ["no header"], 500.0)
    (folder / "lock").touch()
    shown = said("list")
    rows = [line.split() for line in shown.splitlines() if " MB " in line and "stored" not in line]
    assert [row[0] for row in rows] == ["17", "3000", "?"]
    assert rows[1][-2:] == ["org/target", "org/draft"]
    assert "\x1b" not in shown
    assert f"3 stored prompts, 6 MB in {folder}; the limit is 5.0 GB" in shown


def test_in_a_narrow_terminal_nothing_is_cut(folder: Path) -> None:
    models = {
        "model": "org/a-model-with-a-name-of-sixty-characters-and-then-some-more",
        "draft_model": "org/draft",
    }
    store(folder, "a", {"tokens": 3000, **models}, 100_000.0)
    shown = said("list", columns=60)
    assert "…" not in shown
    lines = shown.splitlines()
    start, end = lines[0].index("model"), lines[0].index("draft model")
    assert "".join(line[start:end].strip() for line in lines[1:-1]).startswith(models["model"])
    assert "1970-01-0" in shown


def test_without_any_the_place_and_the_bound_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTD_CACHE_DISK", "0")
    folder = load_settings().state_dir / PROMPT_CACHE_FOLDER
    assert said("list") == f"0 stored prompts, 0 MB in {folder}; storing is turned off\n"


def test_all_of_them_are_removed_and_nothing_else(folder: Path) -> None:
    for name in ("a", "b"):
        store(folder, name, {"tokens": 1}, 1.0)
    (folder / "mine").touch()
    assert said("clear") == "removed: 2 stored prompts, 4 MB\n"
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert said("clear") == "removed: 0 stored prompts, 0 MB\n"


@pytest.mark.parametrize("verb", ["list", "clear"])
def test_a_folder_that_is_not_ours_alone_is_left_alone(folder: Path, verb: str) -> None:
    kept = store(folder, "a", {"tokens": 1}, 1000.0)
    folder.parent.chmod(0o777)
    result = CliRunner().invoke(app, ["cache", verb], prog_name="draftd")
    assert isinstance(result.exception, ConfigError)
    assert "others can write in the state folder" in str(result.exception)
    assert kept.exists()
