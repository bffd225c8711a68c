"""What all tests share: the fault table, and an environment that is nobody's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import uvloop
from hypothesis import settings

from tests.fault_table import (  # noqa: F401 - pytest finds hooks and fixtures by their names
    measured,
    pytest_addoption,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

settings.register_profile("draftd", deadline=None)  # machines that run tests are busy
settings.register_profile("quick", settings.get_profile("draftd"), max_examples=25)
settings.load_profile("draftd")

REAL = {"browser", "demo", "engines", "pair"}  # fixtures that run or load what `real` stands for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is `real`, whether it says so or not, if it uses such a fixture or is in a module that uses mlx."""
    for item in items:
        module = item.getparent(pytest.Module)
        if REAL.intersection(getattr(item, "fixturenames", ())) or (module and _uses_mlx(module.obj)):
            item.add_marker("real")


@cache
def _uses_mlx(module: ModuleType) -> bool:
    """Whether it has imported mlx or mlx_lm, or anything out of these."""
    origins = (
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
    )
    return any(str(origin).partition(".")[0] in {"mlx", "mlx_lm"} for origin in origins)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the settings of whoever runs it."""
    for key in [key for key in os.environ if key.startswith("DRAFTD_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon's own loop."""
    return {"uvloop": uvloop.new_event_loop}
