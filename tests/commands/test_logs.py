"""`draftd logs`: which lines of the logs are shown, and from which time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from draftd.commands.logs import _epoch
from draftd.errors import ConfigError
from tests.test_cli import up

NOW = time.mktime((2026, 11, 26, 14, 30, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("1d", 86400), ("14:29", 60), ("14:31", 86340)],
)
def test_since_is_a_span_or_a_time_of_the_day_that_has_been(text: str, ago: float) -> None:
    assert NOW - _epoch(text, NOW) == ago


@pytest.mark.parametrize("text", ["", "10", "x", "25:00", "-5m", "1w"])
def test_another_since_is_refused_with_what_can_be_said(text: str) -> None:
    with pytest.raises(ConfigError, match="14:30"):
        _epoch(text, NOW)


def test_all_logs_together_one_alone_and_the_daemons_own(tmp_path: Path) -> None:
    with up(tmp_path, "qwen-fast", "qwen-max") as daemon:
        for name in ("qwen-fast", "qwen-max"):
            daemon.ask("hi", model=name).read()
        everything = daemon.run("logs").stdout.splitlines()
        told = [line.split()[1] for line in everything if " 200 " in line]
        assert told == ["fast", "max"]
        assert any("fast  ready: after" in line for line in everything)
        alone = daemon.run("logs", "max", "-n", "2").stdout.splitlines()
        assert [line.split()[1] for line in sorted(alone, key=lambda line: line[9:])] == ["200", "Draft"]
        own = daemon.run("logs", "daemon").stdout
        assert "profiles read; new or changed: qwen-fast, qwen-max" in own
        assert "qwen-max: ready: after" in own
        assert " 200 " not in own
        assert daemon.run("logs", "--since", "nonsense").returncode == 2
        assert daemon.run("logs", "max", "--since", "10m").stdout.count(" 200 ") == 1
