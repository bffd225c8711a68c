"""`[distributed]` in a profile: what it may say, and what is started for it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from draftd.errors import ConfigError
from draftd.first_start import need, weights_here
from draftd.profile_files import parse
from draftd.profiles import Profile
from draftd.protocol import GROUP_VARIABLE, HEADROOM, GroupPlan, Member
from draftd.workers.command import GROUP, argv, environment, fingerprint, group_plan

HERE = {"ssh": "localhost", "ips": ["10.0.0.1"], "rdma": []}
MINI = {"ssh": "me@mini.local", "ips": ["10.0.0.2"], "rdma": []}


def profile(folder: Path, text: str, hosts: Any = None, more: str = "") -> Profile:
    if hosts is not None:
        written = hosts if isinstance(hosts, str) else json.dumps(hosts)
        (folder / "hosts.json").write_text(written)
    return parse(folder / "big.toml", f'model = "org/big"\n{more}\n[distributed]\n{text}\n')


def refusal(folder: Path, text: str, hosts: Any = None, more: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        profile(folder, text, hosts, more)
    [problem] = caught.value.problems
    return f"{problem.line}: {problem.reason}"


def test_ranks_on_this_machine(tmp_path: Path) -> None:
    made = profile(tmp_path, "ranks = 3")
    assert made.distributed is not None
    assert (made.distributed.size, made.distributed.ranks_here, made.distributed.elsewhere) == (3, 3, ())
    assert made.concurrency == 4
    assert argv(made, 8001)[: len(GROUP) + 1] == [*GROUP, "--model"]
    assert group_plan(made) == GroupPlan((Member("", ("127.0.0.1",)),) * 3, "ring", 32323)


def test_a_hostfile_of_mlx_launch_beside_the_profile(tmp_path: Path) -> None:
    hosts = {"backend": "ring", "envs": ["A=1", "B=2=3"], "hosts": [HERE, MINI]}
    made = profile(tmp_path, 'hosts = "hosts.json"\nport = 5000\nenv = { A = "2" }\nmode = "pipeline"', hosts)
    assert made.distributed is not None
    assert (made.distributed.ranks_here, made.distributed.elsewhere) == (1, ("me@mini.local",))
    members = (Member("", ("10.0.0.1",)), Member("me@mini.local", ("10.0.0.2",)))
    assert group_plan(made) == GroupPlan(members, "ring", 5000, "", {"A": "2", "B": "2=3"})
    assert "--pipeline" in argv(made, 8001)
    assert "--pipeline" not in argv(profile(tmp_path, 'hosts = "hosts.json"', [HERE, MINI]), 8001)


def test_the_plan_is_in_the_environment_as_it_was(tmp_path: Path) -> None:
    plan = group_plan(profile(tmp_path, 'hosts = "hosts.json"', [HERE, MINI | {"rdma": [None, "en2"]}]))
    assert plan is not None
    env = environment({}, offline=False, group=plan)
    assert GroupPlan.parse(env[GROUP_VARIABLE]) == plan
    for wrong in ("", "{}", "[]", '{"members": [1]}', '{"members": [], "else": 1}'):
        with pytest.raises(ValueError, match=r"."):
            GroupPlan.parse(wrong)


def test_this_machine_is_known_by_its_names(tmp_path: Path) -> None:
    for name in (socket.gethostname(), f"me@{socket.gethostname().partition('.')[0].upper()}.local"):
        made = profile(tmp_path, 'hosts = "hosts.json"', [HERE | {"ssh": name}, MINI])
        assert made.distributed is not None
        assert made.distributed.hosts[0].local


@pytest.mark.fault(147)
@pytest.mark.parametrize(
    ("text", "hosts", "told"),
    [
        ("", None, "3: distributed: ranks or hosts must be given, but not both"),
        ('ranks = 2\nhosts = "hosts.json"', [HERE, MINI], "4: distributed: ranks or hosts must be given"),
        ("ranks = 1", None, "4: distributed.ranks: "),
        ('hosts = "hosts.json"', {"backend": "mpi", "hosts": [HERE, MINI]}, "mpirun takes no user's name"),
        ('ranks = 2\nbackend = "jaccl"', None, "jaccl is for several machines: it needs hosts"),
        ('ranks = 2\nenv = { MLX_RANK = "1" }', None, "env cannot set MLX_RANK"),
        ('hosts = "none.json"', None, "4: distributed.hosts: "),
        ("hosts = 2", None, "4: distributed.hosts: must be the path of a hostfile"),
        ('hosts = "hosts.json"', "{", "hosts.json is not JSON"),
        ('hosts = "hosts.json"', {"machines": []}, "hosts.json is not a hostfile: it needs hosts"),
        ('hosts = "hosts.json"', [{"ips": []}], "hosts.json is not a hostfile"),
        (
            'hosts = "hosts.json"',
            {"hosts": [HERE, MINI], "envs": 5},
            "hosts.json: envs must be a list of strings",
        ),
        (
            'hosts = "hosts.json"',
            {"hosts": [HERE, MINI], "envs": {"A": "1"}},
            "envs must be a list of strings",
        ),
        ('hosts = "hosts.json"', {"hosts": [HERE, MINI], "envs": ["A"]}, "envs must be a list of strings"),
        (
            'hosts = "hosts.json"',
            {"hosts": [HERE, MINI], "envs": ["A=\0"]},
            "hosts.json: envs.0: item 1 has a NUL",
        ),
        ('hosts = "hosts.json"\nenv = 5', [HERE, MINI], "distributed.env: a table is expected"),
        ('hosts = "hosts.json"\nenv = ["A=1"]', [HERE, MINI], "distributed.env: a table is expected"),
        ('hosts = "hosts.json"', "5", "hosts.json is not a hostfile"),
        ('hosts = "hosts.json"', [HERE], "hosts names only one machine, and a group needs at least two"),
        ('hosts = "hosts.json"', [MINI, HERE], "hosts begins with me@mini.local, but must begin with this"),
        ('hosts = "hosts.json"', [HERE, MINI | {"ips": []}], "hosts has no ips for me@mini.local"),
        (
            'hosts = "hosts.json"',
            [HERE, MINI | {"ssh": "-oProxyCommand=x"}],
            "is not a host that ssh could be",
        ),
        ('hosts = "hosts.json"', {"backend": "nccl", "hosts": [HERE, MINI]}, "distributed.backend: "),
        (
            'hosts = "hosts.json"',
            {"backend": "jaccl", "hosts": [HERE, MINI]},
            "needs an rdma device of localhost",
        ),
    ],
)
def test_what_cannot_be_a_group_is_refused_with_its_line(
    tmp_path: Path, text: str, hosts: Any, told: str
) -> None:
    assert told in refusal(tmp_path, text, hosts)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('adapter_path = "./adapter"', "adapter_path cannot be used with [distributed]"),
        ('command = ["serve", "{port}"]', "command replaces mlx_lm.server: distributed would have no effect"),
    ],
)
def test_what_a_group_cannot_do_is_refused(tmp_path: Path, more: str, told: str) -> None:
    assert told in refusal(tmp_path, "ranks = 2", more=more)


def test_rdma_over_thunderbolt_has_a_device_for_each_other_machine(tmp_path: Path) -> None:
    hosts = {"backend": "jaccl", "hosts": [HERE | {"rdma": [None, "en3"]}, MINI | {"rdma": ["en3", None]}]}
    plan = group_plan(profile(tmp_path, 'hosts = "hosts.json"', hosts))
    assert plan is not None
    assert (plan.backend, plan.members[1].rdma) == ("jaccl", ("en3", None))


def test_another_group_is_another_child(tmp_path: Path) -> None:
    prints = {
        fingerprint(profile(tmp_path, text, [HERE, MINI]))
        for text in ("ranks = 2", "ranks = 3", 'hosts = "hosts.json"', 'ranks = 2\nenv = { A = "1" }')
    }
    assert len(prints) == 4
    assert fingerprint(profile(tmp_path, "ranks = 2")) in prints


def test_what_other_machines_hold_takes_no_room_here(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text("{}")
    here = Profile(name="a", model=str(tmp_path))
    there = profile(tmp_path, 'hosts = "hosts.json"', [HERE, MINI])
    there = there.model_copy(update={"model": str(tmp_path), "draft_model": str(tmp_path)})
    assert (weights_here(here, {}), need(here, {})) == (1000, HEADROOM + 1000)
    assert (weights_here(there, {}), need(there, {})) == (1500, HEADROOM + 1500)
    both = profile(tmp_path, "ranks = 2").model_copy(update={"model": str(tmp_path)})
    assert (weights_here(both, {}), need(both, {})) == (1000, 2 * HEADROOM + 1000)
