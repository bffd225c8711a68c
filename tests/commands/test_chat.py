"""`draftd chat` and `draftd run`, as somebody types them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from draftd import console
from draftd.commands import chat
from tests.forked import LIMIT
from tests.harness import fake
from tests.test_cli import DRAFTD, Up, up


def typed(daemon: Up, words: list[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DRAFTD, *words],
        env=daemon.env,
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_chat_keeps_what_was_said_and_tells_speed_and_tokens(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    with up(tmp_path, "a-fast", "a-max", profile=fake("--log-requests", str(log))) as daemon:
        done = typed(
            daemon, ["chat", "fast", "--system", "Be brief."], "hello\n\nagain\n/new\nanew\n/bye\nnever\n"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("one two three four five") == 3
        assert done.stdout.count("5 tokens, ") == 3
        assert "tokens/s, first after" in done.stdout
        bodies = log.read_text()
        assert '"hello"' in bodies
        assert "never" not in bodies
        last = bodies.strip().splitlines()[-1]
        assert "anew" in last
        assert "hello" not in last
        assert "Be brief." in last


def test_a_prompt_is_answered_on_stdout_and_nothing_else_is(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    with up(tmp_path, "a", profile=fake("--log-requests", str(log))) as daemon:
        done = typed(daemon, ["run", "Sum", "up:", "--max-tokens", "7"], "a text\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "one two three four five six seven\n", "")
        assert "Sum up:\\n\\na text" in log.read_text()
        nothing = typed(daemon, ["run"], "")
        assert nothing.returncode == 2
        assert "there is nothing to ask" in nothing.stderr
        unknown = typed(daemon, ["run", "-m", "nope", "hi"], "")
        assert (unknown.returncode, "there is no model 'nope'" in unknown.stderr) == (2, True)


def test_who_is_not_there_is_an_input_fault_for_every_verb_and_hints_find_the_daemon(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        option = ["--state-dir", str(daemon.state_dir)]
        del daemon.env["DRAFTD_STATE_DIR"]
        for words in (
            ["logs", "nope"],
            ["restart", "nope"],
            ["stop", "nope"],
            ["test", "nope"],
            ["chat", "nope"],
        ):
            done = daemon.run(*words, *option)
            assert (done.returncode, "there is no model 'nope'" in done.stderr) == (2, True), words
        assert daemon.run("stop", "a", *option).returncode == 0
        status = " ".join(daemon.run("ps", *option).stdout.split())
        assert f"a stopped: by order; 'draftd start a --state-dir {daemon.state_dir}' starts it" in status
        refused = daemon.run("run", "hi", *option)
        assert f"'draftd start a --state-dir {daemon.state_dir}' starts it" in refused.stderr
        empty = daemon.run("logs", "--state-dir", str(tmp_path / "none"))
        assert f"'draftd up --state-dir {tmp_path}/none' starts one" in empty.stderr
        assert empty.returncode == 3


def test_a_ctrl_c_that_comes_after_the_answer_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "ask", Mock(side_effect=[KeyboardInterrupt, "more", EOFError]))
    assert [chat._asked() for _ in range(3)] == ["", "more", None]
