"""What there is to work with on the dashboard: the chat, requests, profiles and prompts, a bench."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from draftd.profiles import Profile
from draftd.web import status_report
from tests.harness import fake, serving
from tests.web.pages import DESKTOP, PHONE, button, looks_well, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

_worker = status_report.worker


async def test_a_chat_streams_keeps_what_was_said_and_can_be_ended(tmp_path: Path, browser: Browser) -> None:
    log = tmp_path / "requests"
    profiles = {"a": fake("--log-requests", str(log)), "b": fake("--log-requests", str(log))}
    async with serving(tmp_path, profiles) as served, opened(browser, served) as page:
        await page.get_by_label("Model to chat with").select_option("b")
        message = page.get_by_label("Message", exact=True)
        await message.fill("it's <b>me</b>")
        await page.keyboard.press("Enter")
        talk = page.locator("#chat-talk")
        await expect(talk.locator(".assistant .text")).to_have_text("one two three four five")
        await expect(talk.locator(".assistant .note")).to_contain_text("5 tokens, ")
        await expect(talk.locator(".user .text")).to_have_text("it's <b>me</b>")
        await expect(page.locator("#chat-curl")).to_contain_text('"model":"b"')
        await expect(page.locator("#chat-curl")).to_contain_text("it'\\''s <b>me</b>")
        await message.fill("[[slow 1]] more")
        await page.keyboard.press("Enter")
        await expect(talk.locator(".assistant .text").nth(1)).to_contain_text("one")
        assert "one two three four five" in log.read_text().splitlines()[-1]
        await button(page, "Stop").click()
        await expect(talk.locator(".assistant .note").nth(1)).to_have_text("you ended the answer")
        await expect(button(page, "Send")).to_be_visible()
        await button(page, "New chat").click()
        await expect(talk.locator(".message")).to_have_count(0)
        await expect(message).to_be_focused()


async def test_drafted_tokens_are_marked_in_a_chat_and_thoughts_are_not_said_again(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scripted server has no drafters, so its answer is made up here, in the form of a real one.
    monkeypatch.setattr(Profile, "all_drafters", property(lambda _: ("lookup", "model")))
    told = {"content": [{"text": "one", "drafter": None}, {"text": " two", "drafter": "model"}]}
    choices: list[dict[str, Any]] = [
        {"delta": {"reasoning": "hm"}, "drafters": {"reasoning": [{"text": "hm", "drafter": "lookup"}]}},
        {"delta": {"content": "one two"}, "drafters": told},
        {"delta": {}, "finish_reason": "stop"},
    ]
    answer = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices)
    asked: list[Any] = []

    async def answered(route: Route) -> None:
        asked.append(route.request.post_data_json)
        await route.fulfill(body=answer + "data: [DONE]\n\n", content_type="text/event-stream")

    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        await page.route("**/v1/chat/completions", answered)
        await expect(page.locator("#chat-legend")).to_be_hidden()
        for _ in range(2):
            await page.get_by_label("Message", exact=True).fill("hi")
            await page.keyboard.press("Enter")
            await expect(button(page, "Send")).to_be_visible()
        assert asked[0]["return_drafters"] is True
        assert asked[1]["messages"][1] == {"role": "assistant", "content": "one two"}
        first = page.locator("#chat-talk .assistant .text").first
        await expect(first).to_have_text("hmone two")
        await expect(first.locator("[data-drafter=model]")).to_have_text(" two")
        await expect(first.locator(".thoughts [data-drafter=lookup]")).to_have_text("hm")
        await expect(page.locator("#chat-legend")).to_contain_text("model")
        await expect(first.locator("[data-drafter]")).to_have_count(2)


async def test_requests_are_listed_with_details_and_one_that_runs_can_be_cancelled(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        await expect(page.locator("#no-requests")).to_be_visible()
        await served.ask("a", stream=True)
        await served.ask("nobody")
        rows = page.locator("#request-rows > tr:not(.details)")
        await expect(rows).to_have_count(2)
        await expect(rows.nth(0).locator(".status")).to_contain_text("404")
        await expect(rows.nth(1).locator(".status")).to_contain_text("200")
        await expect(rows.nth(1).locator(".model")).to_have_text("a")
        await expect(rows.nth(1).locator(".answer")).to_have_text("5")
        await rows.nth(0).get_by_role("button", name=re.compile("Details")).press("Enter")
        details = page.locator("#request-rows > tr.details").nth(0)
        await expect(details).to_contain_text("there is no model 'nobody'")

        asking = asyncio.create_task(served.ask("a", "[[slow 5]]", stream=True))
        await expect(rows.nth(0).locator(".status")).to_contain_text("answering")
        await rows.nth(0).get_by_role("button", name=re.compile("Cancel")).click()
        await expect(rows.nth(0).locator(".status")).to_contain_text("503")
        assert (await asking).events[-1]["error"]["code"] == "cancelled"
        await expect(rows.nth(0).get_by_role("button", name=re.compile("Cancel"))).to_have_count(0)


async def test_contents_are_captured_and_shown_only_if_the_user_says_so(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        switch, contents = page.get_by_label("capture contents"), page.locator(".contents")
        rows = page.locator("#request-rows > tr:not(.details)")
        await expect(page.locator("#capture-note")).to_have_text("the last 100: figures, no texts")
        await served.ask("a", "a secret")
        await switch.check()
        await expect(page.locator("#capture-note")).to_contain_text("until this is switched off")
        await served.ask("a", "a <b>question</b>", stream=True)
        await expect(rows).to_have_count(2)
        for number in range(2):
            await rows.nth(number).get_by_role("button", name=re.compile("Details")).click()
        await expect(contents.nth(0)).to_contain_text('"content": "a <b>question</b>"')
        await expect(contents.nth(0)).to_contain_text('"content": "one two three four five"')
        await expect(contents.nth(1)).to_be_hidden()
        await switch.uncheck()
        await expect(contents.nth(0)).to_be_hidden()
        await expect(page.locator("#request-table")).not_to_contain_text("question")
        assert (await served.get("/api/status")).json["capture"] is False


async def test_profiles_and_prompts_can_be_read_with_what_is_wrong_with_them(
    tmp_path: Path, browser: Browser
) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "brief.txt").write_text("Be <b>brief</b>.\n")
    tables = "[limits]\nconcurrency = 2\n"
    profiles = {"a": fake(top='autostart = false\nsystem_prompt = "brief"', tables=tables)}
    async with serving(tmp_path, profiles) as served, opened(browser, served) as page:
        text, problem = page.locator("#profiles-text"), page.locator("#profiles-problem")
        await expect(text).to_contain_text('system_prompt = "brief"')
        await expect(text).to_contain_text("[limits]\nconcurrency = 2")
        await expect(problem).to_be_hidden()
        await page.get_by_label("Profile or prompt to show").select_option("prompt brief")
        await expect(text).to_contain_text("# used by a (default)")
        await expect(text).to_contain_text("Be <b>brief</b>.")
        served.write("b", "modle = 1\n")
        served.daemon.try_reload()
        await expect(problem).to_contain_text("b.toml:1: modle: unknown key")
        served.write("b", fake(top="autostart = false"))
        (tmp_path / "prompts" / "brief.txt").write_text("Be brief indeed.\n")
        served.daemon.try_reload()
        await expect(problem).to_be_hidden()
        await expect(text).to_contain_text("Be brief indeed.")  # what was chosen stays
        await page.get_by_label("Profile or prompt to show").select_option("profile b")
        await expect(text).to_contain_text("command = [")


async def test_a_bench_is_started_watched_and_its_result_read(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only what has a draft model can be measured, which no scripted server has: a page that says so is made up.
    monkeypatch.setattr(status_report, "worker", lambda *told: _worker(*told) | {"draft_model": "small"})
    spread = {"median": 20.0, "low": 19.0, "high": 21.0}
    cell = {"kind": "code", "temperature": 0, "speed": spread, "acceptance": None, "first_token": spread}
    cells = [
        cell | {"variant": "no drafting", "speed_up": None},
        cell | {"variant": "5", "speed_up": {"median": 1.5}, "acceptance": 0.8},
    ]
    report = {
        "verdict": ["overall: 5 is best"], "cells": cells, "model": "big", "draft_model": "small",
        "machine": "a machine", "runs": 2, "max_tokens": 64, "busy": 90,
    }  # fmt: skip
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        go = tmp_path / "go"
        os.mkfifo(go)
        script = (
            "import json, sys\n"
            'print(json.dumps({"event": "progress", "doing": "run 1, code", "done": 3, "total": 8}), flush=True)\n'
            f"open({str(go)!r}).read()\n"
            f"print(json.dumps({{'event': 'report', 'report': {report!r}}}))"
        )
        served.daemon.benches.command = (sys.executable, "-c", script)
        async with opened(browser, served) as page:
            page.on("dialog", lambda dialog: dialog.accept())
            bench = page.locator("#bench")
            await expect(page.locator("#bench-note")).to_have_text("none since the daemon started")
            await bench.get_by_role("button", name="Start").click()
            await expect(page.locator("#bench-note")).to_have_text("run 1, code: 3 of 8")
            await expect(bench.get_by_role("progressbar")).to_have_attribute("value", "3")
            await expect(bench.get_by_role("button", name="Stop")).to_be_enabled()
            await asyncio.to_thread(go.write_text, "")
            await expect(page.locator("#bench-verdict")).to_have_text("overall: 5 is best")
            await expect(bench.locator("tbody tr").nth(1)).to_contain_text("1.50 ×")
            await expect(page.locator("#bench-how")).to_contain_text("Other programs used 90 %")
            await page.reload()
            await expect(page.locator("#bench-verdict")).to_have_text("overall: 5 is best")
            await page.get_by_label("Profile to measure").focus()
            for size in (DESKTOP, PHONE):
                await looks_well(page, size, "light", "bench")
