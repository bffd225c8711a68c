"""One demo daemon for all tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.demo import Demo, demo_daemon


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with demo_daemon(tmp_path_factory.mktemp("demo")) as running:
        yield running
