"""What is known of a group's model and machines before it starts; the machines are reached by a scripted ssh."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from draftd import __version__
from draftd.cli import app
from draftd.demo import TARGET
from draftd.hub import read_model
from draftd.ops import hosts
from draftd.ops.doctor.distributed import machines, split
from draftd.ops.doctor.facts import Facts, HostReport, Severity, Versions
from draftd.ops.host_report import report
from draftd.ops.hosts import look
from draftd.ops.splitting import can_split, refusals
from draftd.profile_tables import Distributed, Machine
from draftd.profiles import Profile
from tests import fake_rank

HERE = Machine(ssh="localhost", ips=("127.0.0.1",), local=True)
VERSIONS = Versions("3.12", "arm64", "Darwin", "15", "1", "2", "")


def profile(model: str | Path = TARGET, *elsewhere: Machine, **keys: Any) -> Profile:
    group = (
        Distributed(hosts=(HERE, *elsewhere), **keys) if elsewhere else Distributed(**({"ranks": 2} | keys))
    )
    return Profile(name="big", model=str(model), distributed=group)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rank.program(tmp_path / "path" / "ssh", fake_rank.SSH)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")


# --- the model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "tensor", "pipeline"),
    [
        ("qwen3", True, False),
        ("llama", True, False),
        ("mistral", True, False),  # served as llama
        ("qwen3_5_moe", True, True),  # made from another one
        ("deepseek_v3", True, True),
        ("gemma3_text", False, False),
        ("no_such_type", True, True),  # told elsewhere
    ],
)
def test_what_mlx_lm_can_split_is_read_in_its_files(model_type: str, tensor: bool, pipeline: bool) -> None:
    assert (can_split(model_type, "tensor"), can_split(model_type, "pipeline")) == (tensor, pipeline)


def made(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "keys", "told"),
    [
        (
            {"model_type": "gemma3_text"},
            {},
            "cannot split models of type gemma3_text in tensor mode",
        ),
        ({"model_type": "llama"}, {"mode": "pipeline"}, "in pipeline mode; mode = 'tensor' would work"),
        ({"model_type": "llama", "num_attention_heads": 3}, {}, "num_attention_heads is 3"),
        (
            {"model_type": "deepseek_v3"},
            {"mode": "pipeline"},
            "a pipeline needs model.safetensors.index.json",
        ),
    ],
)
def test_models_that_cannot_be_split_are_refused(
    tmp_path: Path, config: dict[str, Any], keys: dict[str, Any], told: str
) -> None:
    model = made(tmp_path / "model", **config)
    [reason] = refusals(profile(model, **keys), read_model(str(model)))
    assert told in reason
    assert not list(refusals(profile("org/none"), read_model("org/none")))


@pytest.mark.parametrize(
    ("version", "words"),
    [("", "needs macOS 26.2 or later and Thunderbolt 5"), ("15.7.1", "Darwin 15.7.1"), ("26.2", "")],
)
def test_rdma_is_refused_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch, version: str, words: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin" if version else "Linux")
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), ""))
    here = HERE.model_copy(update={"rdma": (None, "rdma_en2")})
    group = Distributed(hosts=(here, Machine(ssh="mini", rdma=("rdma_en3", None))), backend="jaccl")
    found = list(refusals(Profile(name="big", model="org/none", distributed=group), read_model("org/none")))
    assert [words in reason for reason in found] == ([True] if words else [])


@pytest.mark.fault(143)
def test_check_refuses_heads_that_do_not_divide(tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text(f'model = "{TARGET}"\n\n[distributed]\nranks = 2\n')
    done = CliRunner().invoke(app, ["check", "--profiles", str(tmp_path)])
    assert f"{tmp_path}/big.toml:3: distributed: num_attention_heads is 3" in str(done.exception)
    (tmp_path / "big.toml").write_text(f'model = "{TARGET}"\n\n[distributed]\nranks = 3\n')
    done = CliRunner().invoke(app, ["check", "--profiles", str(tmp_path)])
    assert done.exit_code == 0
    assert f"big: {TARGET}, on 3 ranks, no drafting" in done.output


# --- the machines -------------------------------------------------------------------------------------------


def test_a_machine_tells_what_it_has() -> None:
    told = report({"models": [str(TARGET), "/no/where"], "addresses": ["127.0.0.1", "192.0.2.1"]})
    assert (told["draftd"], told["missing"], told["strange"]) == (__version__, ["/no/where"], ["192.0.2.1"])


@pytest.mark.usefixtures("ssh")
def test_machines_are_asked_by_ssh(tmp_path: Path) -> None:
    gone = shutil.copytree(TARGET, tmp_path / "model")
    minis = [Machine(ssh=name, ips=("127.0.0.1",)) for name in ("mini", "down")]
    mine, mini, down = look([profile(gone, *minis)])
    assert mine == HostReport("big", "")
    assert (mini.unreachable, mini.broken, mini.differing, mini.missing) == ("", "", (), ())
    assert abs(mini.clock_off) < 30
    assert "Connection refused" in down.unreachable
    assert list(look([profile(gone), Profile(name="a", model="b")])) == []


@pytest.mark.usefixtures("ssh")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("print('{}')", "exit code 0"),
        ("import sys; sys.exit('No module named draftd')", "No module named draftd"),
    ],
)
def test_a_machine_without_draftd_is_told_with_its_words(tmp_path: Path, answer: str, expected: str) -> None:
    python = fake_rank.program(tmp_path / "python", answer)
    _, found = look([profile(TARGET, Machine(ssh="mini", ips=("127.0.0.1",)), python=str(python))])
    assert found == HostReport("big", "mini", broken=expected)


@pytest.mark.parametrize(
    ("found", "severity", "what", "do"),
    [
        (
            {"unreachable": "Permission denied"},
            Severity.ERROR,
            "ssh cannot reach mini: P",
            "ssh-copy-id mini",
        ),
        (
            {"broken": "no draftd"},
            Severity.ERROR,
            "draftd does not run on mini: no draftd",
            "install draftd there",
        ),
        ({"differing": ("mlx 1 (here 2)",)}, Severity.ERROR, "mini has mlx 1 (here 2)", "the same versions"),
        ({"missing": ("/m",)}, Severity.ERROR, "mini does not have /m", "rsync -a /m/ mini:/m/"),
        ({"missing": ("o/m",)}, Severity.WARNING, "mini does not have o/m", "draftd pull --hosts big"),
        (
            {"strange": ("1.2.3.4",)},
            Severity.ERROR,
            "mini does not have the address 1.2.3.4",
            "correct the ips",
        ),
        ({"clock_off": -60.0}, Severity.NOTE, "the clock of mini is 60 s behind", "from the network"),
        ({}, Severity.FINE, "mini (big): it can be reached, and has the same", ""),
    ],
)
def test_the_doctor_says_what_to_do(found: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    facts = Facts(version="1", versions=VERSIONS, hosts=(HostReport("big", "mini", **found),))
    [finding] = machines(facts)
    assert (finding.severity, finding.topic) == (severity, "ranks")
    assert what in finding.what
    assert do in finding.do


def test_the_doctor_says_which_models_cannot_be_split() -> None:
    facts = Facts("1", VERSIONS, profiles=(profile(),), unsplittable={"big": ("three heads",)})
    [finding] = split(facts)
    assert (finding.severity, finding.what) == (Severity.ERROR, "big: three heads")
    [finding] = split(Facts("1", VERSIONS, profiles=(profile(),)))
    assert (finding.severity, finding.what) == (Severity.FINE, "big: its model can be split over 2 ranks")


# --- the weights --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ssh")
@pytest.mark.parametrize("works", [True, False])
def test_pull_brings_the_weights_to_the_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    asked: list[list[str]] = []
    real: Callable[..., list[str]] = hosts.ssh_command

    def stands_in(*words: Any) -> list[str]:
        asked.append(real(*words))
        return [sys.executable, "-c", f"raise SystemExit({int(not works)})"]

    monkeypatch.setattr(hosts, "ssh_command", stands_in)
    monkeypatch.setattr("draftd.commands.setup.download", lambda name: f"/cache/{name}")
    (tmp_path / "hosts.json").write_text(
        json.dumps([{"ssh": "localhost", "ips": ["1.1.1.1"]}, {"ssh": "mini", "ips": ["1.1.1.2"]}])
    )
    (tmp_path / "big.toml").write_text('model = "org/big"\n[distributed]\nhosts = "hosts.json"\n')
    done = CliRunner().invoke(app, ["pull", "--hosts", "--profiles", str(tmp_path)])
    [command] = asked
    assert command[-2:] == ["mini", f"exec {sys.executable} -P -m draftd.ops.pull org/big"]
    assert ("org/big on mini: it is there" in done.output) is works
    assert (done.exit_code == 0) is works
    assert works or "could not be downloaded on mini" in str(done.exception)
