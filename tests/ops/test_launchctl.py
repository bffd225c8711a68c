"""The calls of launchctl, by a stand-in that records them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from draftd.errors import DraftdError, NotRunningError
from draftd.instance import AGENT
from draftd.ops import launchctl as calls
from tests.ops.test_launchd import agent

GUI, USER = calls.domains(501)
TARGET = "gui/501/dev.draftd"
TARGETS = (TARGET, "user/501/dev.draftd")

# Notes each call, and exits with the codes in its file, one per call: "bootstrap 5".
STAND_IN = """\
#!/bin/sh
echo "$*" >> "$CALLS"
code=$(awk -v verb="$1" '$1 == verb { print $2; exit }' "$CODES")
awk -v verb="$1" '$1 == verb && !found { found = 1; next } { print }' "$CODES" > "$CODES.new"
mv "$CODES.new" "$CODES"
[ "$1" = print ] && [ -z "$code" ] && cat "$PRINTED"
[ -n "$code" ] && echo "failed: $code" >&2
exit ${code:-0}
"""
PRINTED = """\
gui/501/dev.draftd = {
	active count = 1
	path = /Users/me/Library/LaunchAgents/dev.draftd.plist
	type = LaunchAgent
	state = running

	program = /usr/local/bin/draftd
	endpoints = {
		state = active
	}
	runs = 2
	pid = 4711
	last exit code = 1
}
"""


class Launchctl:
    """The stand-in on the PATH."""

    def __init__(self, folder: Path) -> None:
        self._calls, self._codes = folder / "calls", folder / "codes"
        self._calls.touch()

    def answers(self, *lines: str) -> None:
        self._codes.write_text("".join(f"{line}\n" for line in lines))

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def launchctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launchctl:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "launchctl").write_text(STAND_IN)
    (folder / "launchctl").chmod(0o755)
    (folder / "printed").write_text(PRINTED)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("calls", "codes", "printed"):
        monkeypatch.setenv(name.upper(), str(folder / name))
    made = Launchctl(folder)
    made.answers()
    return made


def quiet(_: str) -> None:
    """For the words about waiting."""


class Clock:
    """Time passes only by sleeping."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("gone", [3, 113])
def test_the_first_install_finds_nothing_to_stop(tmp_path: Path, launchctl: Launchctl, gone: int) -> None:
    launchctl.answers(f"bootout {gone}", f"bootout {gone}")
    mine = agent(tmp_path)
    calls.install(mine, b"the plist", GUI, quiet)
    assert mine.plist.read_bytes() == b"the plist"
    assert mine.log_dir.is_dir()
    assert launchctl.calls == [
        *(f"bootout {target}" for target in TARGETS),
        f"enable {TARGET}",
        f"bootstrap gui/501 {mine.plist}",
    ]


def test_a_second_install_stops_the_first_and_waits_until_launchd_lets_go(
    tmp_path: Path, launchctl: Launchctl
) -> None:
    mine, clock = agent(tmp_path), Clock()
    calls.install(mine, b"old", GUI, quiet)
    launchctl.answers("bootout 36", "bootstrap 5", "bootstrap 37", "bootstrap 5")
    calls.install(mine, b"new", GUI, quiet, clock=clock, sleep=clock.sleep)
    assert mine.plist.read_bytes() == b"new"
    first = ["bootout", "bootout", "enable", "bootstrap"]
    assert [call.split()[0] for call in launchctl.calls] == [*first, *first, *["bootstrap"] * 3]
    assert list(mine.plist.parent.iterdir()) == [mine.plist]


def test_an_agent_that_never_leaves_is_told_in_the_end(tmp_path: Path, launchctl: Launchctl) -> None:
    launchctl.answers(*["bootstrap 5"] * 200)
    mine, clock = agent(tmp_path, longest_stop=1.0), Clock()
    with pytest.raises(DraftdError, match=r"launchctl bootstrap .* failed with 5: failed: 5"):
        calls.install(mine, b"", GUI, quiet, clock=clock, sleep=clock.sleep)
    assert clock.now > mine.exit_timeout  # the daemon may drain for so long


@pytest.mark.fault(111)
def test_where_no_agent_was_loaded_nobody_waits_for_one_to_leave(
    tmp_path: Path, launchctl: Launchctl
) -> None:
    launchctl.answers("bootout 113", "bootout 113", *["bootstrap 5"] * 200)
    mine, clock, told = agent(tmp_path, longest_stop=100.0), Clock(), list[str]()
    with pytest.raises(DraftdError, match=r"launchctl bootstrap .* failed with 5: failed: 5"):
        calls.install(mine, b"", GUI, told.append, clock=clock, sleep=clock.sleep)
    assert clock.now == calls.SETTLE
    assert told == ["launchd does not take the agent yet (error 5); trying again for 15 s"]


@pytest.mark.parametrize(("answer", "call"), [("bootout 1", "bootout"), ("bootstrap 78", "bootstrap")])
def test_any_other_failure_is_told_at_once(
    tmp_path: Path, launchctl: Launchctl, answer: str, call: str
) -> None:
    launchctl.answers(answer)
    with pytest.raises(DraftdError, match=f"launchctl {call} .* failed with {answer.split()[1]}"):
        calls.install(agent(tmp_path), b"", GUI, quiet)


@pytest.mark.fault(111)
@pytest.mark.parametrize("code", [112, 113, 125])
def test_without_a_session_at_the_screen_the_agent_runs_in_the_users_own(
    tmp_path: Path, launchctl: Launchctl, code: int
) -> None:
    launchctl.answers(f"print {code}", f"bootout {code}", "bootout 113")
    domain = calls.find_domain(501)
    assert (str(domain), domain.session) == ("user/501", "Background")
    mine = agent(tmp_path)
    calls.install(mine, b"", domain, quiet)
    assert launchctl.calls == [
        "print gui/501",
        "print user/501",
        *(f"bootout {target}" for target in TARGETS),
        f"enable {TARGETS[1]}",
        f"bootstrap user/501 {mine.plist}",
    ]


@pytest.mark.fault(111)
def test_without_any_session_it_is_said_who_has_to_log_in(launchctl: Launchctl) -> None:
    launchctl.answers("print 125", "print 112")
    with pytest.raises(
        DraftdError, match=r"\(gui/501 and user/501 do not exist\): log in at this Mac's screen or"
    ):
        calls.find_domain(501)


def test_at_the_screen_the_agent_runs_there(launchctl: Launchctl) -> None:
    domain = calls.find_domain(501)
    assert (str(domain), domain.session) == ("gui/501", "Aqua")


@pytest.mark.fault(111)
def test_an_agent_in_the_background_is_found(launchctl: Launchctl) -> None:
    launchctl.answers("print 113")
    assert calls.status(501)["domain"] == "user/501"


@pytest.mark.parametrize(("word", "disabled"), [("disabled", True), ("true", True), ("enabled", False)])
def test_a_disabled_agent_is_said_to_be_that(
    monkeypatch: pytest.MonkeyPatch, word: str, disabled: bool
) -> None:
    def call(command: list[str]) -> subprocess.CompletedProcess[str]:
        code = 113 if command[1] == "print" else 0
        return subprocess.CompletedProcess(command, code, f'\t\t"{AGENT}" => {word}\n', "")

    monkeypatch.setattr(calls, "_call", call)
    with pytest.raises(NotRunningError) as caught:
        calls.status(501)
    assert ("which has been disabled" in str(caught.value)) == disabled


def test_uninstall_takes_away_what_is_there(tmp_path: Path, launchctl: Launchctl) -> None:
    mine = agent(tmp_path)
    calls.install(mine, b"", GUI, quiet)
    assert calls.uninstall(mine, 501)
    assert not mine.plist.exists()
    launchctl.answers("bootout 3", "bootout 125")
    assert not calls.uninstall(mine, 501)
    assert launchctl.calls[-4:] == [f"bootout {target}" for target in TARGETS] * 2


def test_status_is_the_jobs_own(launchctl: Launchctl) -> None:
    facts = {"state": "running", "runs": "2", "pid": "4711", "last exit code": "1"}
    assert calls.status(501) == {"domain": "gui/501"} | facts
    launchctl.answers("print 113", "print 113")
    with pytest.raises(NotRunningError, match="launchd has no agent of draftd"):
        calls.status(501)


def test_a_machine_without_launchctl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DraftdError, match=r"launchctl bootout .* failed: .*No such file"):
        calls.uninstall(agent(tmp_path), 501)


def test_a_dry_run_tells_what_an_install_does(tmp_path: Path, launchctl: Launchctl) -> None:
    mine = agent(tmp_path)
    lines = calls.dry_run(mine, GUI)
    assert lines[1] == f"draftd launchd print fast > {mine.plist}"
    calls.install(mine, b"", GUI, quiet)
    assert [f"launchctl {call}" for call in launchctl.calls] == lines[2:]
    calls.uninstall(mine, 501)
    stops = [f"launchctl {call}" for call in launchctl.calls[-2:]]
    assert calls.dry_uninstall(mine, 501) == [*stops, f"rm -f {mine.plist}"]
