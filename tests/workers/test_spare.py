"""Which start takes the warm spare, and which ends it."""

from __future__ import annotations

import sys

import pytest

from draftd.profiles import Profile
from draftd.workers import command
from draftd.workers.spare import Use, flags_of, use_of

OFFLINE = {"PATH": "/bin", "HF_HUB_OFFLINE": "1"}
ONLINE = {"PATH": "/bin"}
ENGINE = [*command.ENGINE, "--model", "m"]
FOREIGN = [sys.executable, "-m", "draftd.engine.guardian", *ENGINE]


@pytest.mark.parametrize(
    ("argv", "env", "warm", "use"),
    [
        (ENGINE, OFFLINE, True, Use.TAKE),
        (ENGINE, OFFLINE, False, Use.END),  # it would compete with the start
        (ENGINE, ONLINE, True, Use.END),  # the next start will want this environment
        (ENGINE, OFFLINE | {"MORE": ""}, True, Use.END),
        (FOREIGN, OFFLINE, True, Use.KEEP),
        (FOREIGN, OFFLINE, False, Use.END),
    ],
)
def test_the_use_of_a_spare(argv: list[str], env: dict[str, str], warm: bool, use: Use) -> None:
    assert use_of(OFFLINE, argv, env, warm=warm) is use


def test_the_flags_are_those_of_the_engines_command_line() -> None:
    profile = Profile(name="a", model="target")
    assert flags_of(command.argv(profile, 8000)) == command.argv(profile, 8000)[3:]
    foreign = Profile(name="b", model="m", command=("server", "{port}"))
    assert flags_of(command.argv(foreign, 8000)) is None
    assert flags_of(command.SPARE) is None
