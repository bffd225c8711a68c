"""The live table and the lines above it, and what `up` prints where there is no terminal for a table."""

from __future__ import annotations

import codecs
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from draftd.commands.live_view import MAX_LINES, TICK, LiveView
from draftd.telemetry.told import Told
from tests.forked import LIMIT
from tests.harness import fake, free_ports
from tests.test_cli import DRAFTD, Up, up
from tests.test_console import a_terminal, as_if_by, row


def test_every_line_stands_above_the_table_once_and_in_order() -> None:
    terminal = a_terminal(is_terminal=True)
    view = LiveView(terminal)
    view.name(["qwen-fast", "qwen-max"])
    with view.running("info"):
        for number in range(50):
            view.tell(Told(0.0, "qwen-fast", f"line {number}"))
        view.say("a text\nof two lines")
    text = as_if_by(terminal, is_terminal=True)
    assert re.findall(r"fast  line (\d+)", text) == [str(number) for number in range(50)]
    assert text.count("a text\nof two lines") == 1
    assert "qwen-fast" not in text


class Stuck(io.StringIO):
    """A terminal that takes nothing, as after Ctrl-S, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(LIMIT)
        return super().write(text)


def test_a_terminal_that_takes_nothing_holds_nobody_up_and_what_it_missed_is_counted() -> None:
    terminal = a_terminal(is_terminal=True)
    stuck = terminal.file = Stuck()
    view = LiveView(terminal)
    began = time.monotonic()
    with view.running("info"):
        for number in range(MAX_LINES + 100):
            view.tell(Told(0.0, "", f"line {number}"))
        took = time.monotonic() - began
        stuck.go_on.set()
    assert took < LIMIT / 2
    missed = re.search(r"… (\d+) lines were not shown", stuck.getvalue())
    assert missed is not None
    assert 95 <= int(missed[1]) <= 100


def in_words(daemon: Up, *parts: str) -> str:
    """Read what the daemon says until a line has all these parts; that line."""
    assert daemon.process.stderr is not None
    for line in daemon.process.stderr:
        if all(part in line for part in parts):
            return line
    raise AssertionError(f"it never said {parts}")


def test_without_a_terminal_each_event_is_a_line_that_can_be_read(tmp_path: Path) -> None:
    daemon = Up(tmp_path, "a", form="--plain")
    try:
        assert re.match(
            r"\d\d:\d\d:\d\d a: ready: after \d+\.\d s, on port \d+\n", in_words(daemon, "a: ready")
        )
        in_words(daemon, "draftd serves at")
        daemon.ask("hi", model="a").read()
        line = in_words(daemon, "a: 200", "tokens", "tok/s")
        assert "Python-urllib" in line
        (tmp_path / "profiles" / "b.toml").write_text(fake())
        in_words(daemon, "profiles read; new or changed: b")
        daemon.process.terminate()
        in_words(daemon, "stopping")
        in_words(daemon, "draftd has stopped")
    finally:
        daemon.end()


def test_json_is_a_line_an_event_and_nothing_else(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        daemon.ask("hi", model="a").read()
        line = daemon.until("request")
        assert (line["profile"], line["status"], line["phase"]) == ("a", 200, "ended")
        assert line["tokens"] == 5
        daemon.process.terminate()
        assert daemon.process.stderr is not None
        for rest in daemon.process.stderr:
            json.loads(rest)


@pytest.mark.thorough
def test_in_a_terminal_a_request_and_a_shutdown_are_told_above_the_table(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(fake())
    port = free_ports()
    env = {key: value for key, value in os.environ.items() if not key.startswith("DRAFTD_")} | {
        "DRAFTD_PROFILES": str(tmp_path / "profiles"), "DRAFTD_STATE_DIR": str(tmp_path / "state"),
        "DRAFTD_PORT": str(port), "DRAFTD_BASE_PORT": str(free_ports(2)), "TERM": "xterm", "HOME": str(tmp_path),
    }  # fmt: skip
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*DRAFTD, "up"], env)
    said = ""
    decoder = codecs.getincrementaldecoder("utf-8")()

    def until(*parts: str) -> None:
        nonlocal said
        deadline = time.monotonic() + LIMIT
        while not all(part in said for part in parts):
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 0.5)[0]:
                said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", decoder.decode(os.read(terminal, 65536)))

    try:
        until("ready: after", "draftd serves at")
        ask = [*DRAFTD, "test", "--state-dir", str(tmp_path / "state")]
        subprocess.run(ask, env=env, capture_output=True, timeout=LIMIT, check=True)
        until("200 ", "tok/s")
        until(" a      ready")  # the table is there
        os.kill(pid, signal.SIGINT)
        until("stopping", "draftd has stopped")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    assert said.index("ready: after") < said.index("200 ") < said.index("stopping")


class Asked:
    """A loop and a daemon at once, which counts how often it is asked for its workers."""

    def __init__(self) -> None:
        self.looks = 0
        self.report = self

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        call()

    def live(self) -> dict[str, Any]:
        self.looks += 1
        peer = {"name": "mini:8080", "state": "out", "reason": "fell silent", "due": None}
        return {"workers": [row("a", requests=self.looks)], "peers": [peer]}


def test_the_table_lives_on_while_lines_come_without_a_pause() -> None:
    terminal = a_terminal(is_terminal=True)
    terminal.is_interactive = True
    view = LiveView(terminal)
    asked = Asked()
    view.follow(cast(Any, asked), cast(Any, asked))
    with view.running("info"):
        deadline = time.monotonic() + LIMIT
        while asked.looks < 3:
            view.tell(Told(0.0, "a", "one more"))
            time.sleep(TICK / 5)  # never a pause long enough to look in
            assert time.monotonic() < deadline
    assert "peer mini:8080 is left out: fell silent" in as_if_by(terminal, is_terminal=True)
