"""Faults that only show when profiles are compared with each other and with what is on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.errors import ConfigError


def check(folder: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", "--profiles", str(folder), *words])
    return done.exit_code, done.stdout if done.exception is None or words else str(done.exception)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "profiles"
    made.mkdir()
    (made / "a.toml").write_text('model = "org/a"\naliases = ["first"]\n')
    return made


def test_a_model_folder_that_is_missing_is_found_with_file_and_line(folder: Path) -> None:
    (folder / "b.toml").write_text('model = "org/b"\ndraft_model = "./nowhere"\n')
    _, said = check(folder)
    assert f"{folder}/b.toml:2: draft_model: {folder}/nowhere: there is no such folder" in said
    (folder / "b.toml").write_text(f'model = "{folder}/a.toml"\n')
    assert "b.toml:1: model: " in check(folder)[1]
    assert "is a file, not a folder" in check(folder)[1]
    (folder / "b.toml").write_text(f'model = "{folder}"\n')
    assert "2 profiles are valid" in check(folder)[1]


def test_a_server_of_its_own_may_call_its_model_what_it_likes(folder: Path) -> None:
    (folder / "b.toml").write_text('model = "/models/x"\ncommand = ["serve", "{port}"]\n')
    assert "2 profiles are valid" in check(folder)[1]


@pytest.mark.parametrize(("name", "refused"), [("nope", True), ("a", False), ("first", False), ("", False)])
def test_a_default_profile_that_names_nothing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, refused: bool
) -> None:
    monkeypatch.setenv("DRAFTD_DEFAULT_PROFILE", name)
    _, said = check(folder)
    told = "DRAFTD_DEFAULT_PROFILE: default_profile: there is no profile 'nope'; there are: a"
    assert (told in said) is refused
    if refused:
        done = CliRunner().invoke(app, ["up", "--plain", "--profiles", str(folder), "--port", "1"])
        assert isinstance(done.exception, ConfigError)
        assert told in str(done.exception)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("GROUPS_APART", "a,nope", "groups_apart: there is no profile 'nope'; there are: a"),
        ("GROUPS_TOGETHER", "nope", "groups_together: there is no profile 'nope'; there are: a"),
        (
            "MEMORY_PRESSURE",
            "/nowhere/memory.pressure",
            "memory_pressure: /nowhere/memory.pressure cannot be read",
        ),
    ],
)
def test_settings_that_name_what_there_is_not_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"DRAFTD_{variable}", value)
    assert told in check(folder)[1]


def test_profiles_that_stand_together_and_apart_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "b.toml").write_text('model = "org/b"\n')
    monkeypatch.setenv("DRAFTD_GROUPS_APART", "a,b")
    assert "2 profiles are valid" in check(folder)[1]
    monkeypatch.setenv("DRAFTD_GROUPS_TOGETHER", "b,a")
    assert "groups_apart: b and a are in one list of groups_together as well" in check(folder)[1]


def test_the_findings_as_json(folder: Path) -> None:
    code, said = check(folder, "--json")
    body = json.loads(said)
    assert (code, body["valid"], body["problems"]) == (0, True, [])
    assert body["profiles"][0] == {
        "name": "a", "model": "org/a", "draft_model": None, "drafting": "no drafting", "here": False, "ranks": 1,
    }  # fmt: skip
    (folder / "b.toml").write_text("modle = 1\n")
    code, said = check(folder, "--json")
    body = json.loads(said)
    assert (code, body["valid"], body["profiles"]) == (2, False, [])
    assert {(one["file"], one["line"]) for one in body["problems"]} >= {(str(folder / "b.toml"), 1)}


def test_certificates_that_cannot_be_read_are_found_with_file_and_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty := tmp_path / "ca.pem").touch()
    settings = tmp_path / "draftd.toml"
    settings.write_text(
        f'[discovery]\nca_file = "{tmp_path}/none.pem"\n[[peers]]\nurl = "https://localhost"\nca_file = "{empty}"\n'
    )
    monkeypatch.setenv("DRAFTD_CONFIG", str(settings))
    code, said = check(folder)
    assert code != 0
    none = f"the certificates in {tmp_path}/none.pem cannot be read: No such file or directory"
    assert f"{settings}:2: discovery.ca_file: {none}" in said
    assert (
        f"{settings}:3: peers: the certificates in {empty} cannot be read: there is no certificate in it"
        in said
    )
