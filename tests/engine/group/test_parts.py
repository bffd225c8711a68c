"""The small parts of a group: what backends want, how a group ends, and what is refused before it is loaded."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.demo import TARGET
from draftd.engine.exits import EngineError
from draftd.engine.group import splitting, stand_in, wire
from draftd.engine.group.backends import addresses, environment, ports_needed
from draftd.engine.group.mpi import MeetingPoint
from draftd.protocol import EXIT_REFUSED, GroupPlan, Member

HERE, THERE = (
    Member("", ("10.0.0.1", "10.1.0.1"), (None, "en2")),
    Member("mini", ("10.0.0.2",), ("en3", None)),
)


def test_a_ring_knows_all_addresses_and_each_rank_its_own() -> None:
    plan = GroupPlan((HERE, THERE), "ring", 5000, env={"A": "1"})
    assert ports_needed(plan) == 3
    assert addresses(plan, 5000) == [[["10.0.0.1", 5000], ["10.1.0.1", 5001]], [["10.0.0.2", 5002]]]
    given = environment(plan, 1, 5000)
    assert given["environ"] == {"MLX_RANK": "1", "A": "1"}
    assert json.loads(given["files"]["MLX_HOSTFILE"]) == [
        ["10.0.0.1:5000", "10.1.0.1:5001"],
        ["10.0.0.2:5002"],
    ]


def test_rdma_has_one_coordinator_and_a_matrix_of_devices() -> None:
    plan = GroupPlan((HERE, THERE), "jaccl", 5000)
    assert ports_needed(plan) == 1
    assert addresses(plan, 5000) == [[["10.0.0.1", 5000]], []]
    given = environment(plan, 1, 5000)
    assert given["environ"] == {"MLX_RANK": "1", "MLX_JACCL_COORDINATOR": "10.0.0.1:5000"}
    assert json.loads(given["files"]["MLX_IBV_DEVICES"]) == [[None, "en2"], ["en3", None]]


def test_mpi_finds_ports_by_itself() -> None:
    plan = GroupPlan((HERE, THERE), "mpi", 5000, env={"A": "1"})
    assert (ports_needed(plan), addresses(plan, 5000)) == (0, [[], []])
    assert environment(plan, 1, 5000) == {"environ": {"MLX_RANK": "1", "A": "1"}, "files": {}}


@pytest.mark.fault(184)
def test_a_stand_in_says_what_mpirun_has_given_it_in_one_piece() -> None:
    given = {"PMIX_RANK": "3", "OMPI_LONG": "x" * 10_000, "PMIX_SERVER": "here:1"}
    said = stand_in.line({**given, "HOME": "/root"})
    assert len(said) < 4096
    assert stand_in.parse(said) == (3, given)
    for wrong in (b"", b"a word of its own\n", b"1 !\n", b"1 QUJD\n", b"x " + said[2:]):
        with pytest.raises(ValueError, match=r"."):
            stand_in.parse(wrong)


@pytest.mark.fault(184)
async def test_without_mpirun_its_absence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftd.engine.group.mpi.shutil.which", lambda name, path: None)
    with pytest.raises(EngineError, match="apt install openmpi-bin") as caught:
        await MeetingPoint(GroupPlan((HERE, HERE), "mpi", 5000), sys.executable, print).open({})
    assert caught.value.code == EXIT_REFUSED


@pytest.mark.fault(143)
def test_each_rank_refuses_a_model_that_does_not_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int, reason: str) -> None:
        assert code == EXIT_REFUSED
        raise SystemExit(reason)

    monkeypatch.setattr(splitting, "leave", leave)
    monkeypatch.setattr(splitting, "config_of", lambda repo: json.loads((TARGET / "config.json").read_text()))
    loaded: list[dict[str, Any]] = []

    def load(repo: str, pipeline_group: Any, tensor_group: Any, **options: Any) -> None:
        loaded.append(options)

    checked = splitting.checked(load)
    two, three = (SimpleNamespace(size=lambda size=size: size) for size in (2, 3))
    with pytest.raises(SystemExit, match="does not fit 2 ranks: num_attention_heads is 3"):
        checked("demo", tensor_group=two)
    assert not loaded
    checked("demo", tensor_group=three, return_config=True)
    checked("demo", pipeline_group=two)
    assert loaded == [{"return_config": True}, {}]


def test_messages_are_objects_in_lines() -> None:
    setup = wire.Setup(1, 2, ["--model", "m"], "ring", {"A": "1"}, "secret")
    assert wire.Setup.parse(setup.line()) == setup
    assert wire.parse(b"\n") == {}
    assert wire.parse(wire.line({wire.GO: 1})) == {wire.GO: 1}
    for wrong in (b"[]", b"{"):
        with pytest.raises(ValueError, match=r"."):
            wire.parse(wrong)
    with pytest.raises(ValueError, match="rank"):
        wire.Setup.parse(b"{}")
