"""Every state of the dashboard on a phone and two screens: nothing is cut, pale, nameless or out of reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.harness import LIMIT
from tests.web.looks import WIDTHS, looks
from tests.web.made_pages import shown

pytestmark = pytest.mark.asyncio(loop_scope="module")
AUDIT = (Path(__file__).parent / "audit.js").read_text("utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """One page for all: a window costs more than what is looked at in it."""
    made = await browser.new_page()
    made.set_default_timeout(LIMIT * 1000)
    yield made
    await made.close()


@pytest.mark.parametrize("name", looks())
async def test_nothing_is_cut_pale_nameless_or_out_of_reach(page: Page, name: str) -> None:
    look = looks()[name]
    found = []
    async with shown(look.made) as address:
        await page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        await page.goto(address)
        await page.locator("#headline:not(:text('Waiting')), dialog[open]").first.wait_for()
        await look.act(page)
        for width in WIDTHS:  # colours do not depend on it
            await page.set_viewport_size({"width": width, "height": 900})
            await page.emulate_media(color_scheme="dark" if width == WIDTHS[-1] else "light")
            found += [f"{width} px: {complaint}" for complaint in await page.evaluate(AUDIT)]
    assert found == []
