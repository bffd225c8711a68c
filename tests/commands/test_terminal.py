"""What the commands print when foreign names, texts and errors try to control the terminal, or it is ASCII only."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from draftd.commands import doctor
from draftd.ops.doctor.facts import Finding, Severity
from tests.commands.test_chat import typed
from tests.forked import LIMIT, run
from tests.harness import fake
from tests.test_cli import DRAFTD, up
from tests.test_console import EVIL, STEERING

PACKAGE = Path(__file__).parents[2] / "daemon" / "draftd"
IN_THE_CHILD = {"engine", "train"}  # there stdout and stderr are the daemon's to read
WRITES = {"print", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt", "click.echo", "Console"} | {
    f"sys.{stream}.{verb}"
    for stream in ("stdout", "stderr")
    for verb in ("write", "writelines", "buffer.write")
}
MODEL = "evil\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066[bold]x[/bold]"
ARGUMENT = EVIL.replace("\0", "")


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.fault(71)
def test_one_module_writes_to_the_terminal() -> None:
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not IN_THE_CHILD.intersection(path.parts) and WRITES.intersection(calls(path))
    }
    # cli.py writes its version alone: rich takes longer than that. The last two run on another machine, and a
    # program reads what they print.
    assert writers == {"cli.py", "console.py", "ops/host_report.py", "ops/pull.py"}


def harmless(done: subprocess.CompletedProcess[str]) -> str:
    """What it wrote to either stream, none of which controls the terminal."""
    said = done.stdout + done.stderr
    assert STEERING.intersection(said) == set()
    return said


@pytest.mark.fault(71)
def test_no_verb_lets_a_model_steer_the_terminal(tmp_path: Path) -> None:
    profile = fake("--word", MODEL).replace('model = "fake"', f"model = {json.dumps(MODEL)}")
    with up(tmp_path, "a", profile=profile) as daemon:
        for words in ([], ["logs"], ["stop", "a"], ["start", "a"], ["clients"]):
            assert harmless(daemon.run(*words)), words
        for words in (["test", "--prompt", ARGUMENT], ["check"], ["run", "hi"]):
            assert "[bold]x[/bold]" in harmless(daemon.run(*words)), words
        assert "[bold]x[/bold]" in harmless(typed(daemon, ["chat"], f"{ARGUMENT}\n/bye\n"))
        for verb in ("start", "bench", "launch", "pull"):
            refused = daemon.run(verb, ARGUMENT)
            assert (refused.returncode, "there are" in harmless(refused) or "no model" in refused.stderr) == (
                2,
                True,
            )
        assert json.loads(daemon.run("status", "--json").stdout)["workers"][0]["model"] == MODEL
        (tmp_path / "prompts").mkdir()
        (tmp_path / "prompts" / "x\x1b[2J[red].txt").write_text(f"{EVIL}\u202e")
        assert "used by" in harmless(daemon.run("prompts"))
        shown = daemon.run("prompts", "x\x1b[2J[red]").stdout
        assert STEERING.intersection(shown) <= set("\u202e\u2066")  # into a pipe: what steers nothing stays
        (tmp_path / "profiles" / "b.toml").write_text(f'model = "x"\n"{MODEL[4:]}"')
        assert "b.toml" in harmless(daemon.run("check"))


@pytest.mark.fault(71)
def test_no_process_that_the_doctor_names_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    doctor._show([Finding(Severity.ERROR, "machine", f"{EVIL} (pid 1)", EVIL, EVIL)])
    shown = capsys.readouterr().out
    assert STEERING.intersection(shown) == set()
    assert shown.count("[bold]h[/bold][/]") == 3


@pytest.mark.fault(71)
def test_an_error_of_up_steers_nothing(tmp_path: Path) -> None:
    done = run("up", "--profiles", str(tmp_path / MODEL.replace("/", "")))
    assert done.returncode == 2
    assert "does not exist" in harmless(done)


@pytest.mark.thorough
def test_a_terminal_that_is_not_utf8_is_served_too(tmp_path: Path) -> None:
    """The tables, the doctor's marks, the help and the errors have characters that ASCII lacks."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text('model = "modèle 漢"\n')
    env = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "LANG": "C",
        "LC_ALL": "C",
        "DRAFTD_PROFILES": str(tmp_path / "profiles"),
    }
    for words in (["--help"], ["prompts"], ["check"], ["clients"], ["up", "--port", "0"]):
        done = subprocess.run([*DRAFTD, *words], env=env, capture_output=True, timeout=LIMIT, check=False)
        said = (done.stdout + done.stderr).decode("ascii")
        assert re.search(r"\w", said)
        assert "Traceback" not in said
        assert done.returncode in {0, 2, 3}
