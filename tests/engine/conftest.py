"""The pair of models, and the two engines that most of the real tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from draftd.demo import DRAFT, TARGET
from tests.engine.served import Engine

Pair = tuple[Path, Path]


@pytest.fixture(scope="session")
def pair() -> Pair:
    """The folders of the target and of the draft model."""
    return TARGET, DRAFT


@pytest.fixture(scope="session")
def engines(pair: Pair) -> Iterator[tuple[Engine, Engine]]:
    """One engine that drafts, one that does not; they load at the same time."""
    target, draft = pair
    both = Engine("--model", target, "--draft-model", draft), Engine("--model", target)
    try:
        yield both[0].listening(), both[1].listening()
    finally:
        for engine in both:
            engine.stop()


@pytest.fixture
def drafted(engines: tuple[Engine, Engine]) -> Engine:
    return engines[0]


@pytest.fixture
def plain(engines: tuple[Engine, Engine]) -> Engine:
    return engines[1]
