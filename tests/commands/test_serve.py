"""`draftd up`: what it says when it cannot start, about workers with the same weights, and what to type next."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import pytest

from draftd.commands import serve
from draftd.commands.serve import _demo_loader, _loader, what_sharing_saves
from draftd.demo import DRAFT, TARGET
from draftd.errors import ConfigError
from draftd.instance import AGENT, Instance
from draftd.profiles import Profile, ProfileSet
from draftd.settings import Settings
from tests.forked import LIMIT, run
from tests.harness import fake, free_ports
from tests.test_cli import DRAFTD

NO_BYTE = 'ulimit -f 0; exec "$@"'  # no file may have any: as on a full disk


def refused(
    tmp_path: Path, *words: str, port: int | None = None, limit: str = "", **env: str
) -> tuple[int, str]:
    """The exit code of an `up` that cannot start, and the only line that it prints."""
    words = ("up", "--demo", "--plain", "--port", str(port or free_ports()), *words)
    given = {"DRAFTD_STATE_DIR": str(tmp_path / "state"), "DRAFTD_API_KEY": "a-long-random-text"} | env
    done = (
        subprocess.run(
            ["sh", "-c", limit, "sh", *DRAFTD, *words],
            env=os.environ | given,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if limit
        else run(*words, env=os.environ | given)
    )
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return done.returncode, line


@pytest.mark.fault(70)
@pytest.mark.parametrize("held", ["127.0.0.1", "::1"])
def test_a_taken_port_is_one_sentence_with_its_holder_and_a_free_port(tmp_path: Path, held: str) -> None:
    family = socket.AF_INET6 if ":" in held else socket.AF_INET
    port = free_ports(2)
    with socket.create_server((held, port), family=family):
        code, line = refused(tmp_path, port=port)
    assert code == 2
    assert line.startswith(f"draftd: cannot listen on 127.0.0.1:{port}: port {port} is held by ")
    assert f" (pid {os.getpid()}); port {port + 1} is free: '--port {port + 1}'" in line


@pytest.mark.fault(70)
@pytest.mark.parametrize(
    ("words", "limit", "says"),
    [
        (("--host", "203.0.113.1"), "", "this machine does not have that address"),
        (("--host", "nonsense"), "", "neither an address nor the name of a host"),
        (("--host", "a..b"), "", "neither an address nor the name of a host"),
        (("--state-dir", "/dev/null"), "", "the state folder /dev/null cannot be used"),
        (("--state-dir", "/proc/draftd"), "", "the state folder /proc/draftd cannot be used"),
        ((), NO_BYTE, "cannot be used: File too large"),
    ],
)
def test_what_a_restart_does_not_mend_is_one_sentence_and_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], limit: str, says: str
) -> None:
    code, line = refused(tmp_path, *words, limit=limit)
    assert code == 2
    assert says in line


@pytest.mark.fault(70)
def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    code, line = refused(tmp_path, DRAFTD_LOG_FILE=str(tmp_path))
    assert (code, line) == (2, f"draftd: the log file {tmp_path} cannot be written: Is a directory")
    os.mkfifo(pipe := tmp_path / "pipe")
    code, line = refused(tmp_path, DRAFTD_LOG_FILE=str(pipe))
    assert (code, line) == (
        2,
        f"draftd: the log file {pipe} is a named pipe: the daemon would stand still with its reader",
    )


@pytest.mark.fault(70)
def test_launchd_is_not_made_to_try_for_ever(tmp_path: Path) -> None:
    """Its agent is started again, every 10 s, unless it ends with 0."""
    env = os.environ | {"XPC_SERVICE_NAME": AGENT}
    done = run("up", "--demo", "--plain", "--state-dir", "/dev/null", env=env)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 2
    assert "'draftd launchd install' does" in done.stderr


@pytest.mark.thorough
@pytest.mark.fault(112)
def test_an_agent_beside_another_daemon_waits_and_then_serves(tmp_path: Path) -> None:
    """It does not end, as launchd would start it again every 10 s."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(fake())
    given = {
        "XPC_SERVICE_NAME": AGENT,
        "DRAFTD_PROFILES": str(tmp_path / "profiles"),
        "DRAFTD_STATE_DIR": str(tmp_path / "state"),
    }
    command = [*DRAFTD, "up", "--plain", "--port", str(free_ports()), "--base-port", str(free_ports(2))]
    with ExitStack() as other:
        other.enter_context(Instance(tmp_path / "state")).announce("http://127.0.0.1:1", "1.2")
        with subprocess.Popen(command, env=os.environ | given, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "This one waits until it has ended" in process.stderr.readline()
            assert process.poll() is None
            other.close()
            assert any("draftd serves at" in line for line in process.stderr)
            process.terminate()
            process.stderr.read()
            assert process.wait(LIMIT) == 0


def test_what_ended_the_daemon_is_found_however_deep_it_is_and_a_bug_is_shown_whole() -> None:
    fault, bug = ConfigError("x"), KeyError("y")
    deep = BaseExceptionGroup("", [BaseExceptionGroup("", [fault])])
    assert serve._cause(deep) is fault
    both = BaseExceptionGroup("", [fault, bug])
    assert serve._cause(both) is both


def test_workers_that_could_be_one_are_named_with_the_weights_that_this_saves() -> None:
    profiles = [
        Profile(name=name, model=str(TARGET), draft_model=str(DRAFT), num_draft_tokens=length)
        for name, length in (("a", 3), ("b", 5), ("c", 7))
    ]
    weights = sum(path.stat().st_size for folder in (TARGET, DRAFT) for path in folder.glob("*.safetensors"))
    [line] = what_sharing_saves(profiles, share=False)
    assert line.startswith(
        "3 workers hold the same weights: with share_engine = true (--share-engine) one worker serves a, b, c "
    )
    assert f"saves {2 * weights / 1e6:.0f} MB of weights" in line
    assert list(what_sharing_saves(profiles, share=True)) == []
    assert list(what_sharing_saves(profiles[:1], share=False)) == []


def test_the_size_of_weights_that_are_not_here_is_not_made_up() -> None:
    profiles = [Profile(name=name, model="org/nowhere") for name in "ab"]
    [line] = what_sharing_saves(profiles, share=False)
    assert line.rstrip().endswith("one worker serves a, b in one queue")


@pytest.mark.parametrize(
    ("found", "started_by", "command"),
    [
        ("/usr/bin/draftd", "/usr/bin/draftd", "draftd"),
        (None, ".venv/bin/draftd", ".venv/bin/draftd"),
        (None, "/lib/draftd/__main__.py", f"{sys.executable} -m draftd"),
    ],
)
def test_what_to_type_next_is_what_the_users_shell_would_find(
    monkeypatch: pytest.MonkeyPatch, found: str | None, started_by: str, command: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr("sys.argv", [started_by, "up"])
    assert serve._command() == command


def test_the_demo_has_the_presets_and_no_other_shipped_profile() -> None:
    presets = [f"qwen2.5-3b-speculative-{name}" for name in ("auto", "balanced", "fast", "max")]
    profiles = _demo_loader([])().profiles
    assert list(profiles) == presets
    assert {profile.models for profile in profiles.values()} == {(str(TARGET), str(DRAFT))}
    assert list(_demo_loader(["fast"])().profiles) == [presets[2]]


@pytest.mark.fault(103)
@pytest.mark.parametrize(
    ("names", "start", "starting"),
    [([], "auto", ["b"]), ([], "all", ["a", "b", "c"]), (["a", "c"], "auto", ["a", "c"])],
)
def test_whoever_names_profiles_has_them_all_started(
    tmp_path: Path, names: list[str], start: Literal["auto", "all"], starting: list[str]
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.toml").write_text('model = "org/nowhere"\n')
    settings = Settings(profiles=tmp_path, default_profile="b", start=start)
    profiles = _loader(settings, names)().profiles
    assert [name for name, profile in profiles.items() if profile.autostart] == starting


@pytest.mark.fault(103)
async def test_who_waits_for_a_request_is_told_before_anything_has_loaded() -> None:
    daemon = Mock(workers=lambda: [{"state": "starting"}], until_changed=asyncio.Event().wait)
    said: list[str] = []
    showing = asyncio.create_task(serve._show_start(daemon, ["b waits"], [], said.append))
    await asyncio.sleep(0)
    assert said == ["b waits"]
    showing.cancel()


def test_what_was_decided_about_sharing_is_told_even_if_no_worker_starts() -> None:
    decided = ProfileSet({}, sharing="a, b share one worker")
    assert serve._decided(decided, ["c waits"]) == ["a, b share one worker", "c waits"]
    assert serve._decided(ProfileSet({}), []) == []
