"""The launchd agent: its plist by two readers, and what of the shell's environment goes into it."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from draftd.errors import ConfigError
from draftd.ops import launchd
from draftd.ops.launchd import Agent
from draftd.settings import shipped_dir

TEMPLATE = (shipped_dir("launchd") / "dev.draftd.plist").read_bytes()


def agent(home: Path, **changes: Any) -> Agent:
    given: dict[str, Any] = {
        "program": ("/opt/draftd & co/draftd",),
        "words": ("fast",),
        "home": home,
        "longest_stop": 40.5,
        "environment": {},
    }
    return Agent(**given | changes)


def test_the_plist_says_what_launchd_must_know(tmp_path: Path) -> None:
    job = plistlib.loads(
        launchd.render(TEMPLATE, agent(tmp_path, environment={"HF_HOME": "/models"}), "Aqua")
    )
    assert job["Label"] == "dev.draftd"
    assert job["ProgramArguments"] == ["/opt/draftd & co/draftd", "up", "--plain", "fast"]
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["ExitTimeOut"] > 40.5
    assert job["ThrottleInterval"] >= 10
    assert job["ProcessType"] == "Interactive"
    assert job["SoftResourceLimits"]["NumberOfFiles"] >= 4096
    assert job["EnvironmentVariables"]["HF_HOME"] == "/models"
    assert "/usr/bin" in job["EnvironmentVariables"]["PATH"]
    logs = tmp_path / "Library" / "Logs" / "draftd"
    assert job["EnvironmentVariables"]["DRAFTD_LOG_FILE"] == str(logs / "draftd.log")
    assert job["StandardErrorPath"] == job["StandardOutPath"] == str(logs / "launchd.log")
    assert "AbandonProcessGroup" not in job


@pytest.mark.fault(111)
@pytest.mark.parametrize("session", ["Aqua", "Background"])
def test_the_plist_names_the_kind_of_session_that_it_is_for(tmp_path: Path, session: launchd.Session) -> None:
    job = plistlib.loads(launchd.render(TEMPLATE, agent(tmp_path), session))
    assert job["LimitLoadToSessionType"] == session


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        ("/usr/local/bin:/usr/bin", "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        (
            "/mine:/usr/local/bin:/yours:/opt/homebrew/bin",
            "/mine:/opt/homebrew/bin:/usr/local/bin:/yours:/usr/bin:/bin:/usr/sbin:/sbin",
        ),
        (
            "/opt/homebrew/bin:/x:/usr/local/bin",
            "/opt/homebrew/bin:/x:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        ),
    ],
)
def test_programs_for_apple_silicon_come_before_those_for_intel(
    tmp_path: Path, own: str, expected: str
) -> None:
    job = plistlib.loads(launchd.render(TEMPLATE, agent(tmp_path, environment={"PATH": own}), "Aqua"))
    assert job["EnvironmentVariables"]["PATH"] == expected


@pytest.mark.fault(110)
def test_an_agent_of_another_label_has_a_plist_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make mac-check` has one, beside the user's."""
    monkeypatch.setenv("DRAFTD_AGENT_LABEL", "dev.draftd.other")
    mine = agent(tmp_path)
    assert mine.plist.name == "dev.draftd.other.plist"
    assert plistlib.loads(launchd.render(TEMPLATE, mine, "Aqua"))["Label"] == "dev.draftd.other"


@pytest.mark.skipif(
    not shutil.which("plistutil"), reason="plistutil (Debian: libplist-utils) is not installed"
)
def test_another_reader_of_plists_takes_it_too(tmp_path: Path) -> None:
    file = tmp_path / "dev.draftd.plist"
    file.write_bytes(launchd.render(TEMPLATE, agent(tmp_path), "Aqua"))
    binary = tmp_path / "binary.plist"
    subprocess.run(["plistutil", "-i", file, "-f", "bin", "-o", binary], check=True)
    assert plistlib.loads(binary.read_bytes()) == plistlib.loads(file.read_bytes())


@pytest.mark.parametrize("template", [b"", b"<plist>", b"<plist version='1.0'><dict></dict></plist>", b"no"])
def test_a_broken_template_is_refused(tmp_path: Path, template: bytes) -> None:
    with pytest.raises(ConfigError, match="the template of the launchd agent is not valid"):
        launchd.render(template, agent(tmp_path), "Aqua")


def test_a_command_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    launchd.validate(launchd.render(TEMPLATE, agent(tmp_path, program=(sys.executable,)), "Aqua"), tmp_path)
    for command in ("/no/such/draftd", "draftd"):
        with pytest.raises(ConfigError, match=f"{command} cannot be run"):
            launchd.validate(launchd.render(TEMPLATE, agent(tmp_path, program=(command,)), "Aqua"), tmp_path)
