"""`draftd test` as a user types it: against a daemon, against any server, and where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forked import run
from tests.ops.servers import scripted
from tests.test_cli import up


def test_each_step_is_told_and_the_answer_is_shown(tmp_path: Path) -> None:
    with up(tmp_path, "one-fast", "two-max") as daemon:
        done = daemon.run("test", "fast", "--max-tokens", "3")
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    assert told["server"].strip() == f"http://127.0.0.1:{daemon.port} answers"
    assert told["model"].strip().startswith("one-fast: fake, no drafting; worker ready on port")
    assert "one two three\n" in done.stdout
    assert "tokens/s: 3 in" in told["speed"]
    assert told["acceptance"].strip() == "none: nothing drafts for this profile"


def test_an_answer_that_breaks_off_is_a_failure_for_scripts(tmp_path: Path) -> None:
    with up(tmp_path, "one") as daemon:
        done = daemon.run("test", "--prompt", "[[error-event]]")
    assert done.returncode == 1
    assert "one two" in done.stdout
    assert "draftd: the stream ended in an error" in done.stderr


def test_any_address_can_be_tested_and_its_acceptance_is_unknown() -> None:
    with scripted() as url:
        done = run("test", "--url", f"{url}/v1", "--max-tokens", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "one two three\n" in done.stdout
    assert "acceptance   unknown: the server does not say" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 3, "no daemon is running"),
        (("--url", "http://127.0.0.1:1"), 1, "nobody answers at http://127.0.0.1:1: Connection refused"),
    ],
)
def test_without_a_server_the_exit_code_says_so(words: tuple[str, ...], code: int, message: str) -> None:
    done = run("test", *words)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (code, True, False)
