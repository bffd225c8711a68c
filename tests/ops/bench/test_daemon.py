"""daemon: a real daemon for the bench alone, with scripted workers, which ends with the bench however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from draftd.errors import DraftdError
from draftd.ops.bench import daemon
from draftd.ops.bench.daemon import private_daemon, to_toml
from draftd.ops.generation import OpenAIServer
from draftd.profile_files import parse
from draftd.profiles import Profile
from tests.harness import FAKE_SERVER, LIMIT, chat

COMMAND = (*FAKE_SERVER, "--port", "{port}")


def scripted(name: str, *flags: str) -> Profile:
    return Profile.model_validate(
        {"name": name, "model": "fake", "command": [*COMMAND, *flags], "restart": {"max_failures": 1}}
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"draft_model": "small", "num_draft_tokens": 7, "adapter_path": '/a "quoted"\\path\n'},
        {"server": {"prompt_cache_size": 0, "chat_template_args": {"deep": {"er": [1, 2.5, "x"]}}}},
        {"server": {"prompt_cache_bytes": 1000, "trust_remote_code": True}, "limits": {"memory": "8GB"}},
        {"defaults": {"stop": ["é", "\x7f"], "temperature": 0.7}, "health": {"start_timeout": 5.0}},
    ],
)
def test_a_generated_profile_is_read_as_what_it_was_made_of(fields: dict[str, object]) -> None:
    profile = Profile.model_validate({"name": "made", "model": "big", **fields})
    assert parse(Path("made.toml"), to_toml(profile)) == profile


@pytest.mark.thorough
def test_it_serves_its_profiles_whatever_the_settings_of_the_user_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "draftd"
    config.mkdir()
    (config / "draftd.toml").write_text("this is not TOML")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DRAFTD_API_KEY", "a key that nobody sends")
    states: list[str] = []
    profiles = {"one": scripted("one"), "two": scripted("two")}
    with private_daemon(profiles, lambda rows: states.extend(row["state"] for row in rows)) as url:
        server = OpenAIServer(url)
        assert server.models() == ["one", "two"]
        assert server.generate(chat(model="two", max_tokens=2)).text == "one two"
        family = _workers(url)
    assert states[-2:] == ["ready", "ready"]
    _, left = psutil.wait_procs(family, LIMIT)
    assert left == []


def _workers(url: str) -> list[psutil.Process]:
    rows = [OpenAIServer(url).worker(name) for name in ("one", "two")]
    return [psutil.Process(row["pid"]) for row in rows if row is not None]


@pytest.mark.thorough
def test_a_worker_that_cannot_be_loaded_is_named_with_its_last_words() -> None:
    broken = {"baseline": scripted("baseline", "--exit-at-start", "3")}
    words = (
        r"the worker 'baseline' cannot be loaded\nthe worker 'baseline' of fake ended(.|\n)*made of cheese"
    )
    with pytest.raises(DraftdError, match=words), private_daemon(broken, len):
        pass


@pytest.mark.thorough
def test_a_worker_that_dies_at_work_is_named_with_how_it_ended() -> None:
    words = r"answers with status 50[23](.|\n)*the worker 'one' of fake ended: exit \(exit code 9\)"
    with pytest.raises(DraftdError, match=words), private_daemon({"one": scripted("one")}, len) as url:
        OpenAIServer(url).generate(chat("[[die-before-headers]]", model="one"))


@pytest.mark.thorough
def test_a_daemon_that_does_not_come_up_says_why() -> None:
    twice = {name: scripted(name).model_copy(update={"port": 9}) for name in ("one", "two")}
    words = r"the bench's own daemon ended: .*port: 9 is taken"
    with pytest.raises(DraftdError, match=words), private_daemon(twice, len):
        pass


SCRIPT = """
import signal
import psutil
from draftd.ops.bench.daemon import private_daemon
from tests.ops.bench.test_daemon import _workers, scripted
profiles = {"one": scripted("one"), "two": scripted("two")}
with private_daemon(profiles, len) as url:
    pids = [process.pid for process in _workers(url)]
    print(*pids, psutil.Process(pids[0]).ppid(), flush=True)
    signal.pause()
"""


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_it_however_the_bench_ends(number: int, tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bench:
        assert bench.stdout is not None
        family = [psutil.Process(int(pid)) for pid in bench.stdout.readline().split()]
        assert len(family) == 3
        bench.send_signal(number)
        bench.wait(LIMIT)
    _, left = psutil.wait_procs(family, LIMIT)
    assert left == []
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])  # no process, zombies only on macOS
def test_a_group_of_which_nothing_lives_is_no_trouble(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killpg(group: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "killpg", killpg)
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as process:
        process.wait(LIMIT)
        daemon._stop(process)
