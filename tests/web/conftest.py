"""What the tests of the web side share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.harness import LIMIT, QUICK, Served, serving
from tests.web.raw_http import TRANSPORTS, Wire

if TYPE_CHECKING:
    from playwright.async_api import Browser

RAW_SERVER = Path(__file__).parents[1] / "raw_server.py"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@pytest.fixture(params=TRANSPORTS)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Runs a test once over each transport."""
    return Wire(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser with an empty profile of its own (Playwright makes and removes the folder)."""
    from playwright.async_api import async_playwright, expect

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is missing (Debian package chromium)")
    expect.set_options(timeout=LIMIT * 1000)
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        yield made
        await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def foreign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A daemon whose worker is a server that answers what it is told to, byte for byte."""
    command = [sys.executable, str(RAW_SERVER), "--port", "{port}"]
    profile = f'model = "raw"\ncommand = {json.dumps(command)}\n{QUICK}'
    async with serving(tmp_path_factory.mktemp("raw"), {"a": profile}) as running:
        yield running
