"""Stored prompts between real engines: one ends, the next one goes on where it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from draftd.protocol import (
    PROMPT_CACHE,
    PROMPT_CACHE_SUFFIX,
    PROMPT_STORE_VARIABLE,
    RECORD_PREFIX,
    STORED_PROMPT,
    PromptStore,
    read_prompt_cache_header,
)
from tests.engine.served import Engine, turn

pytestmark = pytest.mark.real

Pair = tuple[Path, Path]
QUESTION = turn(" ".join(f"Line {number}: what is a draft model?" for number in range(40)))


@contextmanager
def engine(pair: Pair, folder: Path, *flags: str, **options: Any) -> Iterator[Engine]:
    place = PromptStore(str(folder), 10**9, 20.0)
    models = ("--model", pair[0], "--draft-model", pair[1])
    started = Engine(*models, *flags, env={PROMPT_STORE_VARIABLE: place.text()}, **options)
    try:
        yield started.listening()
    finally:
        started.stop()


def ask(one: Engine, prompt: str = QUESTION) -> tuple[str, int, int]:
    """The text, how many tokens the prompt has, and how many of them had not to be read."""
    answer = one.ask("/v1/completions", prompt=prompt, max_tokens=30)
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return answer["choices"][0]["text"], usage["prompt_tokens"], cached


def end(one: Engine) -> list[str]:
    """End it as the daemon does; what it said of stored prompts."""
    one.process.terminate()
    assert one.wait_for_exit() == -signal.SIGTERM
    return [line for line in one.lines if "prompt" in line and line.startswith("draftd-engine:")]


def told(one: Engine, event: str) -> list[dict[str, Any]]:
    """Its records of this kind."""
    lines = (line.removeprefix(RECORD_PREFIX) for line in one.lines if line.startswith(RECORD_PREFIX))
    return [record for record in map(json.loads, lines) if record["event"] == event]


def test_the_next_engine_writes_the_same_and_reads_only_what_is_new(pair: Pair, tmp_path: Path) -> None:
    with engine(pair, tmp_path) as first:
        text, length, cached = ask(first)
        assert cached == 0
        first.wait_for_line(f'"{PROMPT_CACHE}", "entries": 1')
        assert end(first) == []  # at once: nobody waits for it to be quiet
    (file,) = tmp_path.glob(f"*{PROMPT_CACHE_SUFFIX}")
    with file.open("rb") as opened:
        header = read_prompt_cache_header(opened)
    assert (header["model"], header["draft_model"]) == tuple(map(str, pair))
    with engine(pair, tmp_path) as second:
        assert ask(second) == (text, length, length - 1)
        longer = QUESTION + text + "<|im_end|>\n" + turn("Why?")
        after, length, cached = ask(second, longer)
        assert cached > 0.9 * header["tokens"]
        assert end(second) == []
        assert [one["outcome"] for one in told(second, STORED_PROMPT)] == ["restored", "stored"]
    with engine(pair, tmp_path / "none") as cold:
        assert ask(cold, longer) == (after, length, 0)
    with engine(pair, tmp_path, "--prefill-step-size", "64") as other:
        assert ask(other)[2] == 0  # what was read in other pieces may differ in its last bits


@pytest.mark.parametrize(
    "flags", [(), ("--kv-bits", "8", "--quantized-kv-start", "8")], ids=["batched", "bits"]
)
def test_so_it_is_where_nothing_is_drafted(flags: tuple[str, ...], pair: Pair, tmp_path: Path) -> None:
    place = PromptStore(str(tmp_path), 10**9, 20.0)
    answers = []
    for _ in range(2):
        one = Engine("--model", pair[0], *flags, env={PROMPT_STORE_VARIABLE: place.text()})
        try:
            answers.append(ask(one.listening()))
            assert end(one) == []
        finally:
            one.stop()
    (text, length, cold), (same, _, restored) = answers
    assert (same, cold) == (text, 0)
    assert restored > 0.9 * length


def test_a_request_in_the_middle_does_not_keep_it_from_ending(pair: Pair, tmp_path: Path) -> None:
    with engine(pair, tmp_path) as one:
        ask(one)
        with one.endless():
            assert end(one) == []


def test_without_the_daemon_nothing_is_saved_as_there_is_no_time(pair: Pair, tmp_path: Path) -> None:
    from draftd.protocol import LIFELINE_VARIABLE

    reader, writer = os.pipe()
    place = PromptStore(str(tmp_path), 10**9, 20.0)
    variables = {PROMPT_STORE_VARIABLE: place.text(), LIFELINE_VARIABLE: str(reader)}
    one = Engine("--model", pair[0], env=variables, pass_fds=(reader,))
    try:
        ask(one.listening())
        os.close(writer)
        one.wait_for_exit()
        assert list(tmp_path.glob(f"*{PROMPT_CACHE_SUFFIX}")) == []
    finally:
        one.stop()
        os.close(reader)


def test_a_folder_that_is_none_is_said_and_the_worker_serves(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with engine(pair, file) as one:
        ask(one)
        assert [line.partition(": ")[2] for line in end(one)] == [
            f"no prompt caches are stored: FileExistsError: [Errno 17] File exists: '{file}'"
        ]
