"""What all tests share: the fault table, and an environment without anybody's settings."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import structlog
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
from tests.turns import pytest_runtest_protocol  # noqa: F401

settings.register_profile("draftd", deadline=None)  # machines that run tests are busy
settings.register_profile("quick", settings.get_profile("draftd"), max_examples=15)
settings.load_profile("draftd")

REAL = {"browser", "demo", "engines", "pair"}  # fixtures that run or load what `real` stands for
# A traceback with all its variables, in colours, takes up to half a second.
structlog.configure(
    [
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

_NUMBERS = itertools.count()
LATE = {"anthropic", "mlx", "openai", "playwright", "schemathesis", "transformers"}  # up to a second each
LOADED = pytest.StashKey[set[str]]()
COSTLY = re.compile(
    r"^(?:from|import) (?:mlx|playwright|draftd\.engine\.(?:request|stored_prompts\.identity)\b)",
    re.MULTILINE,
)
OF_TESTS = re.compile(r"^from tests\.(\S+) import", re.MULTILINE)
HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from what is made now: all of it stays, and would be looked at again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no real test is wanted, a module with no other tests is not even imported: mlx_lm takes a second."""
    return True if config.option.markexpr.startswith("not real") and _is_real(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is `real`, whether it says so or not, if it uses such a fixture or is in a module of such tests; and
    `alone`, if it measures.

    Of a test that is marked `one_in(n)` every n-th set of parameters is as it was, and the others are `thorough`.
    """
    seen: Counter[str] = Counter()
    for item in items:
        if REAL.intersection(getattr(item, "fixturenames", ())) or _is_real(item.path):
            item.add_marker("real")
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker("alone")
        if share := item.get_closest_marker("one_in"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % share.args[0]:
                item.add_marker("thorough")
            seen[name] += 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what the tops of modules have imported that a process which only collects tests has no use for."""
    without_real_tests = session.config.option.markexpr.startswith("not real")
    session.config.stash[LOADED] = LATE.intersection(sys.modules) if without_real_tests else set()


@cache
def _is_real(path: Path) -> bool:
    """Whether it is a test module that imports, at its top, mlx, a browser, or something that needs mlx."""
    return path.name.startswith("test_") and path.suffix == ".py" and _is_costly(path)


@cache
def _is_costly(path: Path) -> bool:
    """Whether a module imports such things, itself or by what it has of other modules of the tests."""
    if not path.is_file():  # a package: its parts are imported one by one
        return False
    head = re.split("^(?:@|async|class|def) ?", path.read_text("utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
    helpers = (HERE / f"{name.replace('.', '/')}.py" for name in OF_TESTS.findall(head))
    return COSTLY.search(head) is not None or any(map(_is_costly, helpers))


@pytest.fixture(autouse=True)
def clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads or writes the settings of whoever runs it: its folders are in its `tmp_path`, if it takes one;

    otherwise they are in one that does not exist. Making one for every test takes as long as a third of the tests.
    """
    if "tmp_path" in request.fixturenames:
        mine: Path = request.getfixturevalue("tmp_path")
    else:
        mine = tmp_path_factory.getbasetemp() / "none" / str(next(_NUMBERS))
    for key in [key for key in os.environ if key.startswith("DRAFTD_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(mine / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(mine / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(mine / "state"))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon's own loop."""
    return {"uvloop": uvloop.new_event_loop}
