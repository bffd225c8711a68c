"""The peers on the dashboard: how each is, what it has, how busy and fast it is, and how it failed last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from draftd.peer_tables import PeerTable
from tests.harness import fake, free_ports, serving
from tests.web.pages import DESKTOP, PHONE, looks_well, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_peers_are_shown_with_their_models_and_why_one_is_left_out(
    tmp_path: Path, browser: Browser
) -> None:
    (tmp_path / "other").mkdir()
    async with serving(
        tmp_path / "other", {"far": fake(), "far-asleep": fake(top="autostart = false")}
    ) as other:
        nobody = PeerTable(url=f"http://127.0.0.1:{free_ports()}")
        peers = (PeerTable(url=other.url, weight=2), nobody)
        async with (
            serving(tmp_path, {"here": fake()}, peers=peers) as served,
            opened(browser, served) as page,
        ):
            rows = page.locator("#peer-rows tr")
            await expect(rows).to_have_count(2)
            await expect(rows.nth(0)).to_contain_text(nobody.name)
            out, well = (rows.filter(has_text=peer.name) for peer in (nobody, peers[0]))
            await expect(out.locator(".badge")).to_have_text("left out")
            await expect(out.locator(".badge")).to_have_attribute("data-tone", "bad")
            await expect(out.locator(".state")).to_contain_text(
                re.compile("connection refused; asked again (in|now)")
            )
            await expect(out.locator(".failure")).to_have_text(re.compile(r"^\d+ s ago$"))
            await expect(well.locator("th")).to_have_text(
                f"{other.url.partition('://')[2]}draftd over http, weight 2"
            )
            await expect(well.locator(".badge")).to_have_text("well")
            await expect(well.locator(".peer-models")).to_have_text("far\nfar-asleep (asleep)")
            await expect(well.locator(".open")).to_have_text("0 of 8\n0 of 8")

            assert (await served.ask("far", "[[slow 0.01]]", stream=True)).status == 200
            await expect(well.locator(".answered")).to_have_text("1")
            await expect(well.locator(".speed")).to_have_text(re.compile(r"^\d+(\.\d)?\n–$"))
            await page.get_by_role("button", name=re.compile("Details")).press("Enter")
            await expect(page.locator("tr.details")).to_contain_text(f"answered by the peer: {peers[0].name}")
            served.daemon.fleet.peers[0].failed("fell silent")
            await expect(well.locator(".failure")).to_have_text(re.compile(r"^\d+ s ago: fell silent$"))
            for size in (DESKTOP, PHONE):
                await looks_well(page, size, "dark" if size is PHONE else "light", "peers")
        (tmp_path / "front").mkdir()
        async with (
            serving(tmp_path / "front", {}, peers=peers[:1]) as front,
            opened(browser, front) as page,
        ):
            await expect(page.locator("#headline")).to_have_text("No profile of its own")
            await expect(page.locator("#log")).to_be_hidden()
            await expect(page.locator("#chat-model option")).to_have_text(["far", "far-asleep"])
            await page.locator("#chat-text").fill("hello")
            await page.locator("#chat-send").click()
            await expect(page.locator("#chat-talk .assistant .text")).to_contain_text("one two three")
