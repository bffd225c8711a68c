"""`draftd check`: which drafters will work for each profile, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.hub import NEVER_DRAFTED

[(NEVER, REASON)] = NEVER_DRAFTED.items()


class Profiles:
    """A folder of profiles, and beside it models that consist of nothing but a config."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "profiles"
        self.folder.mkdir()
        for name, model_type in (("big", "qwen3_5"), ("small", "qwen3_5"), ("odd", NEVER)):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(json.dumps({"model_type": model_type}))

    def said(self, text: str) -> list[str]:
        """What `check` says about a profile with this text, with short names for the models."""
        (self.folder / "p.toml").write_text(text)
        done = CliRunner().invoke(app, ["check", "--profiles", str(self.folder)])
        assert done.exception is None, done.exception
        return done.stdout.replace(f"{self.folder.parent}/", "").splitlines()[:-1]


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path)


BIG, SMALL = 'model = "../big"\n', 'draft_model = "../small"\n'


@pytest.mark.parametrize(
    ("text", "drafting"),
    [
        (BIG + SMALL, "drafted by lookup and small (3 tokens)"),
        (BIG + SMALL + 'num_draft_tokens = "auto"\n', "drafted by lookup and small (up to 8 tokens)"),
        (BIG + SMALL + 'drafters = ["model"]\n', "drafted by small (3 tokens)"),
        (BIG + 'drafters = ["lookup"]\n', "drafted by lookup"),
        (BIG, "no drafting"),
        (BIG + SMALL + "drafters = []\n", "no drafting"),
        (BIG + 'draft_model = "../odd"\n', f"drafted by lookup, not by odd: {REASON}"),
        (BIG + 'command = ["serve", "{port}"]\n', "drafted by its own server, if at all"),
    ],
)
def test_what_will_draft_is_told(profiles: Profiles, text: str, drafting: str) -> None:
    assert profiles.said(text) == [f"p: big, {drafting}"]


@pytest.mark.parametrize(
    ("more", "drafting"),
    [
        (SMALL, f"no drafting: {REASON}"),
        ('drafters = ["lookup"]\n', f"no drafting: {REASON}"),
        ("", "no drafting"),
    ],
)
def test_a_target_model_that_cannot_be_drafted_is_told_with_the_reason(
    profiles: Profiles, more: str, drafting: str
) -> None:
    assert profiles.said('model = "../odd"\n' + more) == [f"p: odd, {drafting}"]


def test_all_faults_of_all_files_are_told_in_one_go(profiles: Profiles, monkeypatch: Any) -> None:
    monkeypatch.setenv("DRAFTD_DEFAULT_PROFILE", "short")  # an alias that stands in a broken file
    settings = profiles.folder.parent / "draftd.toml"
    settings.write_text('[groups]\napart = [["valid", "nobody"]]\n')
    monkeypatch.setenv("DRAFTD_CONFIG", str(settings))
    for name, text in {
        "broken": 'model = "../gone"\naliases = ["short"]\nport = "x"\ndraft_modle = "../small"\n',
        "foreign": 'model = "/nowhere"\ncommand = ["serve"]\n',
        "torn": "model = \n",
        "valid": 'model = "../big"\nadapter_path = "./gone"\nsystem_prompt = "none"\n',
    }.items():
        (profiles.folder / f"{name}.toml").write_text(text)
    done = CliRunner().invoke(app, ["check", "--json", "--profiles", str(profiles.folder)])
    found = [
        (Path(one["file"]).name, one["line"], one["reason"].split(" ")[0])
        for one in json.loads(done.stdout)["problems"]
    ]
    assert found == [
        ("draftd.toml", 2, "groups.apart:"),
        ("broken.toml", 1, "model:"),
        ("broken.toml", 3, "port:"),
        ("broken.toml", 4, "draft_modle:"),
        ("foreign.toml", 2, "command"),
        ("torn.toml", 1, "not"),
        ("valid.toml", 2, "adapter_path:"),
        ("valid.toml", 3, "system_prompt:"),
    ]


def test_of_a_model_that_is_not_here_nothing_is_known_yet(profiles: Profiles, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HOME", str(profiles.folder))
    line, note = profiles.said('model = "org/big"\ndrafters = ["lookup"]\n')
    assert line == "p: org/big, drafted by lookup"
    assert note.startswith("models that are not on this machine yet are assumed")
