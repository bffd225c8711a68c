"""The budget of ports, with a clock that only moves while it is slept on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.perf import ports
from tests.perf.ports import PortBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_who_needs_more_than_is_left_waits_until_ports_are_free_again() -> None:
    clock = Clock()
    budget = PortBudget(1000, 30.0, clock, clock.sleep)
    for count, now in ((400, 0.0), (400, 0.0), (1, 30.0), (700, 30.0), (100, 60.0)):
        await budget.take(count)
        assert clock.now == now, count


async def test_a_port_is_kept_from_the_end_of_its_connection() -> None:
    clock = Clock()
    budget = PortBudget(1000, 30.0, clock, clock.sleep)
    await budget.take(800)
    clock.now = 10.0
    budget.given_back()
    await budget.take(1)
    assert clock.now == 40.0


async def test_more_than_there_will_ever_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="801 connections are more than the 800 ports"):
        await PortBudget(1000, 30.0).take(801)


async def test_the_budget_is_that_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(
        "#!/bin/sh\ncase $2 in *.first) echo 49152;; *.last) echo 65535;; net.inet.tcp.msl) echo 15000;; esac\n"
    )
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("sys.platform", "darwin")
    found = ports.budget()
    assert found is not None
    assert (found._limit, found._kept) == (13107, 30.0)
    monkeypatch.setattr("sys.platform", "linux")
    assert ports.budget() is None
