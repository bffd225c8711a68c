"""Two ranks of mlx_lm.server on loopback: the text is that of one process, whoever drafts and whoever leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest

from draftd.demo import TARGET
from draftd.protocol import DRAFTERS_HEADER, GROUP_MODULE, GROUP_VARIABLE, GroupPlan, Member
from draftd.sharded_models import INDEX
from tests.engine.architectures.models import config_of, make, noisy
from tests.engine.served import DEADLINE_S, Engine, turn
from tests.engine.test_serving import saved

pytestmark = pytest.mark.real

PLAN = GroupPlan((Member("", ("127.0.0.1",)),) * 2, "ring", 32323)
SIZES = {"vocab_size": 6144, "max_position_embeddings": 2048}
PROMPTS = (turn("What is a draft model?"), "one two three four five, " * 8, turn("Hello!"), "x = 1\n" * 30)


class Group(Engine):
    """Two ranks in the place of one engine."""

    def __init__(self, *flags: str | Path, plan: GroupPlan = PLAN) -> None:
        start = (sys.executable, "-m", GROUP_MODULE)
        super().__init__(*flags, start=start, env={GROUP_VARIABLE: plan.text()})

    def ranks(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return sorted((one for one in children if "mpirun" not in one.name()), key=lambda each: each.pid)


def pair_of(name: str, folder: Path) -> tuple[Path, Path]:
    """Save a small target model of an architecture, and a draft model for it."""
    inner = config_of(name).get("text_config")
    sizes: dict[str, Any] = {"text_config": {**inner, **SIZES}} if inner else SIZES
    config = config_of(name, **sizes)
    target = saved(make(name, **sizes), config, folder / "target", TARGET)
    return target, saved(noisy(name, **sizes), config, folder / "draft", TARGET)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Group, Engine]]:
    """A group that drafts, and one process that does not."""
    target, draft = pair_of("qwen2", tmp_path_factory.mktemp("ranks"))
    group, alone = Group("--model", target, "--draft-model", draft), Engine("--model", target)
    try:
        group.listening()
        yield group, alone.listening()
    finally:
        group.stop()
        alone.stop()


def assert_same_texts(group: Engine, alone: Engine, prompts: tuple[str, ...]) -> None:
    for prompt in prompts:
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": 10}
        expected = alone.ask("/v1/completions", {DRAFTERS_HEADER: ""}, **body)["choices"][0]["text"]
        for drafters, times in (("model", 2), ("lookup", 1), ("", 1)):
            for _ in range(times):  # the second time from the prompt cache
                answer = group.ask("/v1/completions", {DRAFTERS_HEADER: drafters}, **body)
                assert answer["choices"][0]["text"] == expected
            if drafters == "model":
                assert answer["timings"]["draft_n"] > 0
        assert answer["timings"]["cache_n"] > 0


@pytest.mark.fault(145)
def test_the_text_is_that_of_one_process_and_of_no_drafting(served: tuple[Group, Engine]) -> None:
    group, alone = served
    assert_same_texts(group, alone, PROMPTS[:2])
    for fields in ({"temperature": 1.0, "seed": 7}, {"presence_penalty": 1.0}):
        body: dict[str, Any] = {"prompt": PROMPTS[0], "max_tokens": 12, **fields}
        assert group.complete(**body) == alone.complete(**body)


@pytest.mark.fault(145, 184)
@pytest.mark.thorough
@pytest.mark.skipif(not mx.distributed.is_available("mpi"), reason="Open MPI is not installed")
def test_ranks_that_meet_by_mpi_write_the_same_and_none_is_left(tmp_path: Path) -> None:
    target, draft = pair_of("qwen2", tmp_path)
    group = Group("--model", target, "--draft-model", draft, plan=replace(PLAN, backend="mpi"))
    alone = Engine("--model", target)
    try:
        assert_same_texts(group.listening(), alone.listening(), PROMPTS[:1])
        everybody = psutil.Process(group.process.pid).children(recursive=True)
        assert len(everybody) == 5  # two ranks, mpirun, and two stand-ins
        os.kill(group.process.pid, signal.SIGKILL)  # nobody is told
        _, left = psutil.wait_procs(everybody, timeout=DEADLINE_S)
        assert left == []
    finally:
        group.stop()
        alone.stop()


@pytest.mark.fault(145)
@pytest.mark.thorough
def test_a_pipeline_of_layers_with_states_drafts_the_text_of_no_drafting(tmp_path: Path) -> None:
    target, draft = pair_of("qwen3_5", tmp_path)
    names = mx.load(str(target / "model.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model.safetensors")}
    (target / INDEX).write_text(json.dumps(index))
    group = Group("--model", target, "--draft-model", draft, "--pipeline")
    try:
        group.listening()
        assert_same_texts(group, group, PROMPTS[:1])
    finally:
        group.stop()


@pytest.mark.fault(144)
def test_clients_that_come_at_once_or_leave_end_no_rank(served: tuple[Group, Engine]) -> None:
    group, alone = served
    texts: dict[str, str] = {}

    def ask(prompt: str) -> None:
        texts[prompt] = group.complete(prompt, max_tokens=12)

    asking = [threading.Thread(target=ask, args=(prompt,)) for prompt in PROMPTS]
    left = group.endless()
    for thread in asking:
        thread.start()
    left.close()
    for thread in asking:
        thread.join(DEADLINE_S)
    assert texts == {prompt: alone.complete(prompt, max_tokens=12) for prompt in PROMPTS}
    assert len(group.ranks()) == 2


@pytest.mark.fault(134)
def test_a_rank_that_is_killed_takes_the_others_with_it(served: tuple[Group, Engine]) -> None:
    """The last one in this module: it ends the group."""
    group, _ = served
    ranks = group.ranks()
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert group.wait_for_exit() == -signal.SIGKILL
    _, left = psutil.wait_procs(ranks, timeout=1)
    assert not left
    assert any("rank 1 was ended by SIGKILL, so the group ends" in line for line in group.lines)
