"""The user unit of systemd: its text as systemd reads it, and the calls of systemctl by a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.ops import systemd
from draftd.ops.systemd import Unit

NASTY = 'a "b" \\c %d $e\nf\t100 % ;#'
STAND_IN = """\
#!/bin/sh
echo "$*" >> "$CALLS"
[ -n "$FAILS" ] && { echo "Failed to connect to bus: No medium found" >&2; exit 1; }
[ "$2" = show ] && cat "$PRINTED"
exit 0
"""


def unit(**changes: Any) -> Unit:
    given: dict[str, Any] = {
        "program": (sys.executable, "-m", "draftd"),
        "words": ("balanced",),
        "longest_stop": 35.5,
        "environment": {},
    }
    return Unit(**(given | changes))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in of systemctl notes its calls."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(STAND_IN)
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PRINTED", str(tmp_path / "printed"))
    monkeypatch.setenv("FAILS", "")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_the_unit_starts_draftd_and_does_not_try_again_what_stays_wrong() -> None:
    lines = unit(environment={"DRAFTD_PORT": "9"}).text().splitlines()
    assert f'ExecStart="{sys.executable}" "-m" "draftd" "up" "--plain" "balanced"' in lines
    for line in (
        'Environment="DRAFTD_PORT=9"', "Restart=on-failure", "RestartPreventExitStatus=2", "KillMode=mixed",
        "TimeoutStopSec=56", "WantedBy=default.target",
    ):  # fmt: skip
        assert line in lines


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze (Debian: systemd) is missing"
)
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = tmp_path / systemd.UNIT

    def complaints(text: str) -> str:
        file.write_text(text)
        command = ["systemd-analyze", "--user", "verify", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stderr

    made = unit(
        words=(NASTY, "fast"), environment={"HF_HOME": NASTY, "DRAFTD_STATE_DIR": f"/x/{NASTY}"}
    ).text()
    assert complaints(made) == ""
    assert "Unknown key" in complaints(made.replace("KillMode", "KillMod"))


def test_what_no_unit_can_hold_is_refused() -> None:
    for broken in ("a\x00b", "a\x1bb", "a\udcffb"):
        with pytest.raises(ConfigError, match="cannot go into a unit of systemd"):
            unit(environment={"HF_HOME": broken}).text()


@pytest.mark.parametrize("folder", ["/home/me/.local/state/draftd", f"/x/{NASTY}"])
def test_the_folder_of_the_service_is_found_again(tmp_path: Path, folder: str) -> None:
    file = tmp_path / systemd.UNIT
    assert systemd.installed_state_dir(file) is None
    file.write_text(unit(environment={"DRAFTD_STATE_DIR": folder, "HF_HOME": "/m"}).text())
    assert systemd.installed_state_dir(file) == Path(folder)
    file.write_text(unit().text())
    assert systemd.installed_state_dir(file) is None


def test_installing_writes_the_unit_and_starts_it_anew(tmp_path: Path, calls: Path) -> None:
    file = tmp_path / "config" / "systemd" / "user" / systemd.UNIT
    systemd.install(file, "text")
    assert file.read_text() == "text"
    assert [path.name for path in file.parent.iterdir()] == [systemd.UNIT]
    assert calls.read_text().splitlines()[-3:] == [
        "--user daemon-reload", f"--user enable {systemd.UNIT}", f"--user restart {systemd.UNIT}",
    ]  # fmt: skip
    assert systemd.uninstall(file)
    assert not file.exists()
    assert calls.read_text().splitlines()[-2:] == [
        f"--user disable --now {systemd.UNIT}", "--user daemon-reload",
    ]  # fmt: skip
    assert not systemd.uninstall(file)


def test_without_a_user_manager_nothing_is_written(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "yes")
    file = tmp_path / systemd.UNIT
    with pytest.raises(DraftdError, match="log in as the user that is to run draftd"):
        systemd.install(file, "text")
    assert not file.exists()


def test_the_state_is_what_systemd_says(tmp_path: Path, calls: Path) -> None:
    (tmp_path / "printed").write_text(
        "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=4711\nNRestarts=0\nResult=success\n"
    )
    assert systemd.status() == {"state": "active", "in detail": "running", "pid": "4711", "result": "success"}
    (tmp_path / "printed").write_text("LoadState=not-found\nActiveState=inactive\nMainPID=0\n")
    with pytest.raises(NotRunningError, match="draftd service install"):
        systemd.status()


def test_the_unit_is_where_systemd_looks(tmp_path: Path) -> None:
    assert systemd.unit_file({"XDG_CONFIG_HOME": "/c"}) == Path("/c/systemd/user/draftd.service")
    assert systemd.unit_file({}) == Path.home() / ".config/systemd/user/draftd.service"


def said(*words: str, **env: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["service", *words], prog_name="draftd", env=env)
    return result.exit_code, f"{result.stdout}{result.exception or ''}"


def test_the_verbs_as_somebody_types_them(tmp_path: Path, calls: Path) -> None:
    code, text = said("print", "fast", HF_HOME="/m")
    assert (code, '"up" "--plain" "fast"' in text, 'Environment="HF_HOME=/m"' in text) == (0, True, True)
    assert said("install", "nope")[0] == 1
    code, text = said("install", "fast", "--dry-run")
    assert code == 0
    assert "draftd service print fast > " in text
    assert not calls.exists()
    code, text = said("install", "fast", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert (code, "is installed and runs" in text) == (0, True)
    assert (tmp_path / "config" / "systemd" / "user" / systemd.UNIT).exists()
    code, text = said("uninstall", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert (code, text) == (0, "the service is gone\n")
    code, text = said("status", PATH="/no/where")
    assert "there is no systemd on this" in text
