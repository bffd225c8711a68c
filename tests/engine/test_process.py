"""The engine as a process: how it starts, and every way in which it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httptools.parser import parser

from draftd.demo import TARGET
from draftd.protocol import EXIT_GENERATION_DIED, EXIT_PORT_TAKEN, LIFELINE_VARIABLE
from tests.engine.served import ENGINE, Engine, turn

pytestmark = pytest.mark.real

GONE_S = 2.0
QUESTION = turn("What is draftd?")
# As if another version of mlx_lm served single requests by a function of another name.
OTHER_VERSION = """
import runpy, sys
from mlx_lm import server
serve = server.ResponseGenerator._serve_single
def _serve_single(self, job, stream): serve(self, job, stream)
server.ResponseGenerator._serve_single = _serve_single
runpy.run_module("draftd.engine", run_name="__main__")
"""


class Engines(list[Engine]):
    def start(self, *flags: str | Path, **options: Any) -> Engine:
        self.append(Engine(*flags, **options))
        return self[-1]


@pytest.fixture
def engines_of_mine() -> Iterator[Engines]:
    engines = Engines()
    yield engines
    for engine in engines:
        engine.stop()


def test_it_says_once_how_it_started(drafted: Engine) -> None:
    (started,) = drafted.records("started")
    assert started["accounting"] is True
    assert set(started["hooks"].values()) == {"placed"}
    assert started["mlx_lm"]


def test_it_says_what_the_models_are_like_when_they_have_loaded(drafted: Engine, plain: Engine) -> None:
    for engine in (drafted, plain):
        engine.wait_for_line('"event": "loaded"')  # which comes after it listens
    (loaded,) = drafted.records("loaded")
    assert loaded["target"]["cache"] == loaded["draft"]["cache"] == ["KVCache"]
    assert loaded["target"]["refusal"] is loaded["draft"]["refusal"] is None
    config = json.loads((TARGET / "config.json").read_text())
    assert loaded["target"]["vocabulary"] == loaded["draft"]["vocabulary"] == config["vocab_size"]
    assert loaded["target"]["context"] == config["max_position_embeddings"]
    (loaded,) = plain.records("loaded")
    assert loaded["draft"] is None


def test_help_is_that_of_mlx_lm_server() -> None:
    done = subprocess.run([*ENGINE, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: draftd.engine")
    assert "--num-draft-tokens" in done.stdout


@pytest.mark.parametrize("flag", ["--model", "--draft-model"])
def test_no_model_at_the_path(
    engines_of_mine: Engines, pair: tuple[Path, Path], tmp_path: Path, flag: str
) -> None:
    flags = {"--model": pair[0], "--draft-model": pair[1]} | {flag: tmp_path}
    engine = engines_of_mine.start(*(part for item in flags.items() for part in item))
    assert engine.wait_for_exit() == EXIT_GENERATION_DIED
    assert "Traceback (most recent call last):" in engine.lines
    # Not always the last line: the main thread begins to listen, and says so, at the same moment.
    reason = "draftd-engine: the generation thread died: FileNotFoundError: "
    (told,) = [line for line in engine.lines if line.startswith(reason)]
    assert str(tmp_path) in told


def test_a_taken_port(engines_of_mine: Engines, pair: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        engine = engines_of_mine.start("--model", pair[0], "--draft-model", pair[1], port=port)
        assert engine.wait_for_exit() == EXIT_PORT_TAKEN
    assert any(
        line.startswith(f"draftd-engine: port {port} on 127.0.0.1 is taken: ") for line in engine.lines
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which libraries a process has opened")
def test_it_starts_no_daemon_of_an_mpi_that_is_installed(
    engines_of_mine: Engines, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    library = tmp_path / "libmpi.so"
    shutil.copy(parser.__file__, library)  # any that can be opened
    engine = engines_of_mine.start("--model", pair[0], env={"MLX_MPI_LIBNAME": str(library)}).listening()
    assert engine.complete(QUESTION, max_tokens=3)
    assert str(library) not in Path(f"/proc/{engine.process.pid}/maps").read_text()


def test_a_quantised_cache_works_without_a_draft(engines_of_mine: Engines, pair: tuple[Path, Path]) -> None:
    flags = ("--kv-bits", "8", "--quantized-kv-start", "8")
    engine = engines_of_mine.start("--model", pair[0], *flags).listening()
    texts = [engine.complete(QUESTION, max_tokens=20) for _ in range(3)]
    assert texts == [texts[0]] * 3
    assert len({engine.complete(QUESTION + texts[0], max_tokens=5) for _ in range(2)}) == 1


def test_the_limit_of_the_prompt_cache_is_kept_with_a_draft(
    engines_of_mine: Engines, pair: tuple[Path, Path]
) -> None:
    engine = engines_of_mine.start(
        "--model", pair[0], "--draft-model", pair[1], "--prompt-cache-bytes", "0"
    ).listening()
    for _ in range(2):
        usage = engine.ask("/v1/completions", prompt=QUESTION, max_tokens=5)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_hook_that_does_not_fit_is_told_once_and_the_worker_serves(
    engines_of_mine: Engines, pair: tuple[Path, Path], drafted: Engine
) -> None:
    engine = engines_of_mine.start(
        "--model", pair[0], "--draft-model", pair[1], start=(sys.executable, "-c", OTHER_VERSION)
    ).listening()
    texts = {one.complete(QUESTION, max_tokens=20) for one in (engine, drafted) for _ in range(2)}
    assert len(texts) == 1
    (started,) = engine.records("started")
    reason = "mlx_lm.server.ResponseGenerator._serve_single takes no request"
    assert (started["accounting"], started["hooks"]["serving"]) == (False, reason)
    assert {name for name, state in started["hooks"].items() if state != "placed"} == {"serving"}
    said = [line for line in engine.lines if line.startswith("draftd-engine: ")]
    assert said == [
        "draftd-engine: nothing is drafted but in mlx_lm's own way, and draft acceptance is not counted: "
        + reason
    ]
    assert engine.records("generation") == []


@pytest.mark.alone
def test_sigterm_ends_it_at_once_while_generating(engines_of_mine: Engines, pair: tuple[Path, Path]) -> None:
    engine = engines_of_mine.start("--model", pair[0], "--draft-model", pair[1]).listening()
    with engine.endless():
        asked = time.monotonic()
        engine.process.terminate()
        assert engine.wait_for_exit() == -signal.SIGTERM
        print(f"gone {time.monotonic() - asked:.2f} s after SIGTERM")
        assert time.monotonic() - asked < GONE_S


@pytest.mark.alone
def test_it_ends_with_the_daemon_while_generating(engines_of_mine: Engines, pair: tuple[Path, Path]) -> None:
    reader, writer = os.pipe()
    engine = engines_of_mine.start(
        "--model", pair[0], "--draft-model", pair[1], env={LIFELINE_VARIABLE: str(reader)}, pass_fds=(reader,)
    )
    os.close(reader)
    engine.listening()
    with engine.endless():
        closed = time.monotonic()
        os.close(writer)
        assert engine.wait_for_exit() == -signal.SIGTERM
        print(f"gone {time.monotonic() - closed:.2f} s after the daemon")
        assert time.monotonic() - closed < GONE_S
