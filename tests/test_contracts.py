"""The contracts in pyproject.toml name every module that they are about, and slow imports in tests come late."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import LOADED

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "daemon"


def docstrings() -> dict[str, str]:
    """By module."""
    found = {}
    for path in (PACKAGE / "draftd").rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return found


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [pure] = [each for each in contracts if each["name"] == "pure modules do no I/O"]
    claims = {name for name, text in docstrings().items() if re.search(r"\bPure\b", text)}
    assert claims - set(pure["source_modules"]) == set()


def test_make_quick_collects_without_the_packages_of_others(request: pytest.FixtureRequest) -> None:
    """They take up to a second each, in each of its processes: import them in the tests that need them."""
    assert request.config.stash[LOADED] == set()
