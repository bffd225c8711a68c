"""The commands in the pages: those that can run here run on a demo daemon; all others name what exists."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

from draftd.cli import app
from draftd.profile_files import load_dir
from draftd.settings import load_settings
from tests.docs.demo import Demo
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, files_written, inline_code, words

SHELL = blocks("sh")
OTHERS = {  # programs of others that the pages use
    "cat", "curl", "git", "grep", "nice", "openssl", "pipx", "uv",
}  # fmt: skip
PREAMBLE = """
set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error --max-time 20 "$@"; }
"""


def _named(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", [block for block in SHELL if block.runs], ids=_named)
def test_a_block_of_commands_runs(block: Block, demo: Demo) -> None:
    done = demo.call(["bash", "-c", PREAMBLE + demo.addressed(block.text)])
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", blocks("python"), ids=_named)
def test_a_block_of_python_runs(block: Block, demo: Demo) -> None:
    done = demo.call([sys.executable, "-c", demo.addressed(block.text)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", SHELL, ids=_named)
def test_a_command_names_what_there_is(block: Block) -> None:
    faults = [fault for command in commands(block.text) for call in words(command) for fault in _faults(call)]
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_the_text_name_what_there_is(page: Path) -> None:
    said = [code.replace("\\|", "|") for code in inline_code(page) if re.match(r"(draftd|make) ", code)]
    calls = [call for code in said for call in _alternatives(code)]
    assert [fault for call in calls for fault in _faults(call)] == []


SHOWN = [pytest.param(block.text, id=block.place) for block in blocks("toml")]
WRITTEN = [
    pytest.param(text, id=f"{block.place} {name}")
    for block in SHELL
    for name, text in files_written(block)
    if name.endswith(".toml")
]


@pytest.mark.parametrize("text", [*SHOWN, *WRITTEN])
def test_a_file_that_a_page_shows_is_valid(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown.toml"
    shown.write_text(text)
    if "model" in tomllib.loads(text):
        assert load_dir(tmp_path, (ROOT / "prompts",)).profiles.keys() == {"shown"}
    else:
        monkeypatch.setenv("DRAFTD_CONFIG", str(shown))
        assert load_settings()


def test_a_file_written_by_a_command_is_found() -> None:
    assert WRITTEN


def test_the_check_finds_what_there_is_not() -> None:
    wrong = (
        "draftd upp",
        "draftd up --demoo",
        "make demoo",
        "python3 -m tests.no",
        "foo",
        "draftd launchd go",
    )
    for line in wrong:
        assert [fault for call in words(line) for fault in _faults(call)], line
    right = "DRAFTD_PORT=1 draftd up fast --port 8090 2>err.txt | grep -x '[a|b]'; make demo PYTHON=python3 # --no"
    assert [fault for call in words(right) for fault in _faults(call)] == []


# --- what a command may name ---------------------------------------------------------------------------------


def _faults(call: Sequence[str]) -> Iterator[str]:
    program, *arguments = call
    program = program.rpartition("/")[2]
    if program == "draftd":
        yield from _of_draftd(arguments)
    elif program == "make":
        targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        yield from (f"make {word}" for word in arguments if "=" not in word and word not in targets)
    elif program in {"python", "python3"} and arguments[:1] == ["-m"]:
        if arguments[1] not in {"venv", "pip"} and importlib.util.find_spec(arguments[1]) is None:
            yield f"python -m {arguments[1]}"
    elif program != "python" and program not in OTHERS and not (ROOT / call[0]).is_file():
        yield f"{program} is no program that a reader has"


def _of_draftd(arguments: Sequence[str]) -> Iterator[str]:
    command: Any = typer.main.get_command(app)
    for word in arguments:
        if word.startswith("-"):
            name = word.partition("=")[0]
            known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
            if name not in known | {"--help"}:
                yield f"{command.name} {name}"
        elif verbs := getattr(command, "commands", None):
            if word not in verbs:
                yield f"draftd {word}"
                return
            command = verbs[word]


def _alternatives(code: str) -> Iterator[list[str]]:
    """`draftd restart|start PROFILE` is two calls; what is optional stands in brackets."""
    program, *rest = code.replace("[", " ").replace("]", " ").split()
    first, others = rest[:1], rest[1:]
    for word in first[0].split("|") if first else ():
        yield [program, word, *others]
