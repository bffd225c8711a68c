"""The dashboard's page in Chromium, watched, and its screenshots."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from tests.harness import LIMIT, Served

OUTPUT = Path(__file__).parents[2] / "test-output"
DESKTOP, PHONE = (1280, 900), (390, 844)


@asynccontextmanager
async def opened(browser: Browser, served: Served) -> AsyncIterator[Page]:
    """The page, watched: it must ask only the daemon for anything, and log no complaint."""
    complaints: list[str] = []
    addresses: list[str] = []
    context = await browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    page = await context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    await page.goto(served.url + "/")
    yield page
    await context.close()
    assert {address.startswith(served.url) for address in addresses} == {True}
    # Chromium logs each refused request by itself; the page then asked for the key.
    assert [text for text in complaints if "401" not in text] == []


async def looks_well(page: Page, size: tuple[int, int], scheme: Any, name: str = "dashboard") -> None:
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await page.emulate_media(color_scheme=scheme)
    room = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert room[0] <= room[1]
    tables = page.locator("#worker-table, #peers .scrolls")
    over = await tables.evaluate_all("tables => tables.map(one => one.scrollWidth - one.clientWidth)")
    assert set(over) <= {0}  # no button is out of sight
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 20, 24)") == (scheme == "dark")
    OUTPUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUTPUT / f"{name}-{size[0]}-{scheme}.png", full_page=True)


def button(page: Page, label: str) -> Any:
    return page.get_by_role("button", name=label, exact=True)
