"""The demo pair, loaded once for each module that generates with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.generation.pairs import Models


@pytest.fixture(scope="module")
def demo(pair: tuple[Path, Path]) -> tuple[Models, list[list[int]]]:
    """The demo pair, and prompts for it."""
    from tests.engine.generation.pairs import load  # it imports mlx

    return load(*pair)


@pytest.fixture(scope="module")
def models(demo: tuple[Models, list[list[int]]]) -> Models:
    return demo[0]


@pytest.fixture(scope="module")
def prompts(demo: tuple[Models, list[list[int]]]) -> list[list[int]]:
    return demo[1]
