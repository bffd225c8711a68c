"""`make mac-check` on Linux, with stand-ins for the tools of macOS, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.docs.pages import ROOT
from tests.mac_check import daemon_checks
from tests.mac_check.__main__ import CHECKS
from tests.mac_check.agent_checks import install, uninstall
from tests.mac_check.results import Check, run_all
from tests.mac_check.site import site

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="a Mac runs `make mac-check` itself"),
]

STAND_INS = Path(__file__).with_name("stand_ins")
THROTTLE = 0.3  # seconds; launchd's is 10
LIMIT = 300.0
COMMAND = [sys.executable, "-m", "tests.mac_check", "--throttle", str(THROTTLE), "fast"]
SKIPPED = {"device and limits": "mlx finds no Metal here"}


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Mac of stand-ins, whose user has nothing of draftd's. Afterwards nothing of it is left."""
    for name in ("home", "scratch", "known"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{STAND_INS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_INS", str(tmp_path / "known"))
    monkeypatch.setenv("STAND_IN_THROTTLE", str(THROTTLE))
    for name in ("HOME", "HOME_OF_USER"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    yield tmp_path
    assert [path for path in (tmp_path / "home").rglob("*") if "draftd" in path.name] == []
    assert {path.name for path in (tmp_path / "scratch").iterdir()} <= {
        "mlx"
    }  # mlx leaves a folder of its own
    assert list((tmp_path / "known").glob("launchd-*")) == []
    assert [process.pid for process in psutil.process_iter() if _is_of(process, tmp_path)] == []


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        words = [*process.cmdline(), *process.environ().values()]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(str(folder / "scratch") in word for word in words)


@pytest.mark.fault(110)
def test_every_check_is_done_and_nothing_is_left(mac: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--out", str(mac / "out")],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [name for name, *_ in rows] == [check.name for check in CHECKS]
    assert {name: text for name, outcome, text, _ in rows if outcome != "ok"} == SKIPPED
    kept = {path.name for path in (mac / "out").iterdir()}
    assert {"lsof-any-v4.txt", "lsof-any-v6.txt", "launchctl-print-agent.txt", "table.md"} <= kept
    assert "state = running" in (mac / "out" / "launchctl-print-agent.txt").read_text()


@pytest.mark.fault(111)
def test_the_agent_is_checked_without_a_session_at_the_screen_too(
    mac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SESSION", "user")
    with site(mac / "out", (), THROTTLE) as here:
        first, last = run_all([Check("installed", install), Check("uninstalled", uninstall)], here)
    assert (first.outcome, last.outcome) == ("ok", "ok"), (first, last)
    assert first.text.startswith(f"in user/{os.getuid()}, ready after")


DEVICE = {
    "device_name": "Apple Paravirtual device",
    "memory_size": 16 * 2**30,
    "max_recommended_working_set_size": 12 * 2**30,
}


def test_the_device_and_its_limits_are_told(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metal = f"import mlx.core as mx; mx.device_info = lambda: {DEVICE}; mx.metal.is_available = lambda: True"
    monkeypatch.setattr(daemon_checks, "DEVICE", f"{metal}\n{daemon_checks.DEVICE}")
    with site(mac / "out", (), THROTTLE) as here:
        figure = daemon_checks.device(here)
        assert here.virtual_gpu == "Apple Paravirtual device"
    assert figure.startswith(
        "Apple Paravirtual device: 17.18 GB, the GPU's share 75%, iogpu.wired_limit_mb 0; "
    )
    assert "at most for a worker: wired 12.88 GB, prompt cache " in figure


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_an_interrupted_check_leaves_nothing_either(mac: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--out", str(mac / "out")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as check:
        assert check.stderr is not None
        assert any("ok  demo ready" in line for line in check.stderr)
        check.send_signal(number)
        check.stderr.read()
        assert check.wait(LIMIT) in {1, -signal.SIGINT}
