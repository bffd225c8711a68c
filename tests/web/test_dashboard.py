"""The dashboard in headless Chromium, on a daemon with scripted workers. Screenshots stay in test-output/."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from draftd.profiles import Profile
from draftd.protocol import Costs
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from draftd.web import status_report
from draftd.web.dashboard import FILES
from tests.harness import LIMIT, QUICK, Served, fake, kill, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

_worker = status_report.worker
OUTPUT = Path(__file__).parents[2] / "test-output"
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """A page of a daemon without workers that run."""
    profiles = {"a": fake(top="autostart = false")}
    async with serving(tmp_path_factory.mktemp("hosted"), profiles) as served:
        page = await browser.new_page()
        await page.goto(served.url)
        yield page
        await page.close()


@asynccontextmanager
async def opened(browser: Browser, served: Served) -> AsyncIterator[Page]:
    """The page, watched: it must ask nobody but the daemon for anything, and have nothing to complain about."""
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
    # Chromium itself words each refused request; the key was then asked for.
    assert [text for text in complaints if "401" not in text] == []


def card(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=f"Worker {name}")


def field(page: Page, name: str, what: str) -> Any:
    return card(page, name).locator(f"[data-field={what}]")


def button(page: Page, label: str) -> Any:
    return page.get_by_role("button", name=label, exact=True)


async def test_one_glance_tells_whether_drafting_pays(tmp_path: Path, browser: Browser) -> None:
    profiles = {
        "balanced": fake("--accepted", "0.8"),
        "max": fake(),
        "plain-model-with-a-rather-long-name": fake(top="autostart = false"),
    }
    async with serving(tmp_path, profiles) as served, opened(browser, served) as page:
        await expect(field(page, "balanced", "state")).to_have_text("ready")
        await expect(page.locator("#curl")).to_contain_text(f"curl -N {served.url}/v1/chat/completions")
        await expect(page.locator("#headline")).to_have_text("2 of 3 workers ready")
        for _ in range(5):
            await served.ask("balanced", "[[slow 0.01]]", stream=True)
            await served.ask("max", "[[slow 0.02]]", stream=True)

        await expect(field(page, "balanced", "acceptance")).to_have_text("83 %")
        await expect(field(page, "max", "acceptance")).to_have_text("50 %")
        await expect(field(page, "balanced", "acceptance")).to_have_attribute("data-tone", "good")
        await expect(field(page, "max", "acceptance")).to_have_attribute("data-tone", "low")
        await expect(page.locator("#headline")).to_have_text("Drafting pays on 1 of 2 profiles")
        await expect(card(page, "balanced").locator(".bar-good")).to_have_count(5)
        await expect(card(page, "max").locator(".bar-low")).to_have_count(5)
        speed = served.row("max")["tokens_per_second"]
        await expect(field(page, "max", "speed")).to_have_text(f"{speed:.1f}")
        await expect(field(page, "max", "requests")).to_have_text("5")
        await expect(field(page, "max", "port")).to_have_text(str(served.row("max")["port"]))
        await expect(page.locator("#hint")).to_be_hidden()
        await expect(page.locator("#connection")).to_have_text("live")

        for size in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                await _looks_well(page, size, scheme)


# Acceptance and, where the engine has measured it, speed against no drafting -> headline, note of the first worker.
@pytest.mark.parametrize(
    ("rows", "headline", "note"),
    [
        ([(0.9, None)], "Drafting pays", "drafting usually pays"),
        ([(0.59, None)], "Drafting hardly pays", "rarely pays: try a shorter draft"),
        ([(0.5, 1.26)], "Drafting pays", "about 1.3 × the speed without a draft"),
        ([(0.9, 0.8)], "Drafting hardly pays", "about 0.8 × the speed without a draft"),
        (
            [(0.9, 0.8), (0.6, None)],
            "Drafting pays on 1 of 2 profiles",
            "about 0.8 × the speed without a draft",
        ),
    ],
)
async def test_a_measured_speed_says_whether_drafting_pays_else_the_rule_of_thumb(
    hosted: Page, rows: list[tuple[float, float | None]], headline: str, note: str
) -> None:
    made = [
        {
            "state": "ready",
            "draft_model": "small",
            "drafters": ["lookup", "model"],
            "draft_refusal": None,
            "recent": {"acceptance": [ratio] * 5},
            "acceptance": {"proposed": 100, "accepted": 100 * ratio, "ratio": ratio},
            "speculation": {"speedup_estimate": factor},
        }
        for ratio, factor in rows
    ]
    script = """async rows => {
        const show = await import("/dashboard/format.js");
        return [show.verdict(rows).headline, show.acceptanceNote(rows[0])];
    }"""
    assert await hosted.evaluate(script, made) == [headline, note]


async def test_there_is_no_verdict_before_enough_requests(hosted: Page) -> None:
    row = {
        "name": "a", "worker": "a", "state": "ready", "drafters": ["model"], "draft_refusal": None,
        "recent": {"acceptance": [0.9] * 4}, "acceptance": {"proposed": 40, "accepted": 36, "ratio": 0.9},
    }  # fmt: skip
    script = 'async row => (await import("/dashboard/format.js")).verdict([row])'
    told = await hosted.evaluate(script, row)
    assert told["headline"] == "1 of 1 worker ready"
    assert told["aside"].endswith("after 5 requests with drafts to one profile; so far there were 4.")


async def test_how_drafting_went_by_position_and_what_it_costs_is_shown(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        drafts = card(page, "a").locator("[data-part=drafts]")
        await expect(field(page, "a", "state")).to_have_text("ready")
        await expect(drafts).to_be_hidden()
        costs = Costs(single=0.02, draft=0.0015, verify=0.0256)
        drafters = {"lookup": DraftAcceptance(1, 3), "model": DraftAcceptance(3, 6)}
        report = GenerationReport(
            3, 9, 4, 0, 3, (3, 1, 0), (3, 3, 3), tokens=7, costs=costs, speedup=1.1, drafters=drafters
        )
        served.daemon.metrics.record("a", report)
        await served.ask("a")
        await expect(drafts.locator(".bar-good title")).to_have_text(["position 1: 3 of 3"])
        await expect(drafts.locator(".bar-low title")).to_have_text(
            ["position 2: 1 of 3", "position 3: 0 of 3"]
        )
        told = "3.0 tokens per draft; 1.5 ms for each, 26 ms to verify; 20 ms a token without"
        await expect(field(page, "a", "drafts-note")).to_have_text(told)
        await expect(field(page, "a", "drafters")).to_have_text("lookup 1 of 3, model 3 of 6")


async def test_that_nothing_can_be_drafted_is_said_with_the_reason(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No scripted server has drafters: a profile with a command takes none.
    drafters = property(lambda profile: ("lookup",) if profile.name == "looking" else ())
    monkeypatch.setattr(Profile, "all_drafters", drafters)
    refusal = "the model's layers keep Odd, which cannot be taken back"
    profiles = {"looking": fake(), "plain": fake()}
    async with serving(tmp_path, profiles) as served:
        for name in profiles:
            served.daemon.supervisor.models_loaded(name, refusal)
        async with opened(browser, served) as page:
            await expect(field(page, "looking", "trouble")).to_have_text(f"Nothing is drafted: {refusal}")
            await expect(field(page, "looking", "trouble")).to_have_attribute("data-tone", "low")
            await expect(field(page, "looking", "acceptance-note")).to_have_text("these models cannot draft")
            await expect(field(page, "looking", "length")).to_have_text("lookup")
            await expect(page.locator("#aside")).to_have_text("No profile drafts.")
            # A profile that wants no drafts has nothing to complain about.
            await expect(field(page, "plain", "state")).to_have_text("ready")
            await expect(field(page, "plain", "trouble")).to_be_hidden()
            await expect(field(page, "plain", "length")).to_have_text("–")
            await _looks_well(page, DESKTOP, "dark", "refused")


async def _looks_well(page: Page, size: tuple[int, int], scheme: Any, name: str = "dashboard") -> None:
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await page.emulate_media(color_scheme=scheme)
    room = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert room[0] <= room[1]
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 20, 24)") == (scheme == "dark")
    OUTPUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUTPUT / f"{name}-{size[0]}-{scheme}.png", full_page=True)


async def test_changes_appear_without_a_reload_and_are_spoken(tmp_path: Path, browser: Browser) -> None:
    tables = "[restart]\ninitial_delay = 0.3\nmax_failures = 2\n[limits]\nconcurrency = 1\n"
    flag = tmp_path / "broken"
    profile = fake("--exit-file", str(flag), tables=tables)
    async with serving(tmp_path, {"a": profile, "b": fake()}) as served, opened(browser, served) as page:
        await expect(field(page, "a", "state")).to_have_text("ready")
        asking = [asyncio.create_task(served.ask("a", "[[wait 0.4]]")) for _ in range(3)]
        await expect(field(page, "a", "queue")).to_have_text("2")
        await expect(field(page, "a", "requests")).to_have_text("0 + 1 now")
        await asyncio.gather(*asking)
        await expect(field(page, "a", "queue")).to_have_text("0")
        await expect(field(page, "a", "requests")).to_have_text("3")

        flag.touch()
        kill(served.row("a")["pid"], 9)
        await expect(field(page, "a", "state")).to_have_text("failed")
        await expect(field(page, "a", "trouble")).to_contain_text("the weights are made of cheese")
        await expect(page.locator("#spoken")).to_have_text("a is failed")
        await expect(page.locator("#headline")).to_have_text("a failed")
        await expect(field(page, "b", "state")).to_have_text("ready")
        flag.unlink()
        await button(page, "Start a").click()
        await expect(field(page, "a", "state")).to_have_text("ready")
        await expect(field(page, "a", "trouble")).to_be_hidden()

        served.write("c", fake())
        await served.post("/api/reload")
        await expect(field(page, "c", "state")).to_have_text("ready")
        (served.profiles / "b.toml").unlink()
        await served.post("/api/reload")
        await expect(card(page, "b")).to_have_count(0)
        assert await page.locator("article h2").all_text_contents() == ["a", "c"]


async def test_orders_work_by_mouse_and_keyboard_and_ask_before_they_cut_a_request(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        before = served.row("a")["pid"]
        await button(page, "Restart a").click()
        await served.until(lambda: served.state("a") == "ready" and served.row("a")["pid"] != before)
        await expect(field(page, "a", "state")).to_have_text("ready")

        await button(page, "Stop a").focus()
        await page.keyboard.press("Enter")
        await expect(field(page, "a", "state")).to_have_text("stopped")
        await expect(button(page, "Start a")).to_be_focused()
        await expect(button(page, "Stop a")).to_be_hidden()
        await page.keyboard.press("Enter")
        await expect(field(page, "a", "state")).to_have_text("ready")

        asking = asyncio.create_task(served.ask("a", "[[slow 0.3]]", stream=True))
        await expect(field(page, "a", "requests")).to_have_text("0 + 1 now")
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def refuse(dialog: Any) -> None:
            asked.set_result(dialog.message)
            await dialog.dismiss()

        page.once("dialog", refuse)
        await button(page, "Stop a").click()
        async with asyncio.timeout(LIMIT):
            assert (await asked).startswith("1 request to a would end")
        assert (await asking).content == "one two three four five"


async def test_the_keyboard_reaches_everything_in_the_order_of_reading(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake(), "b": fake()}) as served, opened(browser, served) as page:
        await expect(field(page, "b", "state")).to_have_text("ready")
        reached = []
        for _ in range(24):
            await page.keyboard.press("Tab")
            reached.append(
                await page.evaluate(
                    "[document.activeElement.ariaLabel || document.activeElement.id,"
                    " getComputedStyle(document.activeElement).outlineStyle]"
                )
            )
        buttons = [f"{word} {name}" for name in "ab" for word in ("Restart", "Stop", "Show the log of")]
        chat = [
            "Model to chat with",
            "chat-new",
            "Messages",
            "Message",
            "chat-send",
            "",
        ]  # "": the curl's summary
        log = ["capture", "Worker whose log is shown", "log-raw", "log-follow", "lines"]
        wanted = ["copy-address", "copy-key", "A first request", *buttons, *chat, *log]
        assert [label for label, _ in reached[: len(wanted)]] == wanted
        assert {style for _, style in reached[: len(wanted)]} == {"solid"}


async def test_the_log_of_the_chosen_worker_comes_live_and_as_text_only(
    tmp_path: Path, browser: Browser
) -> None:
    evil = fake().replace('model = "fake"', 'model = "<img src=x onerror=alert(1)>"')
    async with serving(tmp_path, {"a": fake(), "evil": evil}) as served, opened(browser, served) as page:
        lines = page.get_by_role("log")
        await expect(lines).to_contain_text("fake server of fake")
        await button(page, "Show the log of evil").click()
        await expect(lines).to_contain_text("fake server of <img src=x onerror=alert(1)>")
        await expect(field(page, "evil", "models")).to_have_text("<img src=x onerror=alert(1)>")
        assert await page.locator("main img").count() == 0
        for _ in range(25):  # all of their lines fit into one piece of news
            await served.ask("evil", stream=True)
        await expect(lines.locator(".acceptance")).to_have_count(25)
        at_end = "Math.abs(e.scrollHeight - e.clientHeight - e.scrollTop) < 2"
        assert await lines.evaluate(f"e => e.scrollHeight > e.clientHeight && {at_end}")
        await page.get_by_label("Worker whose log is shown").select_option("a")
        await expect(lines.locator(".acceptance")).to_have_count(0)


async def test_the_page_asks_for_the_api_key_and_keeps_it_in_its_tab(
    tmp_path: Path, browser: Browser
) -> None:
    key = "a-long-random-text"
    headers = {"Authorization": f"Bearer {key}"}
    async with serving(tmp_path, {"a": fake()}, api_key=key) as served:
        for path in FILES:
            assert (await served.get(path)).status == 200
        assert (await served.get("/api/events")).status == 401
        assert (await served.post("/api/workers/a/stop")).status == 401
        async with opened(browser, served) as page:
            await expect(page.get_by_role("dialog")).to_be_visible()
            await expect(page.get_by_label("Key", exact=True)).to_be_focused()
            await page.keyboard.type("wrong")
            await page.keyboard.press("Enter")
            await expect(page.locator("#key-why")).to_have_text("That key was refused.")
            await page.keyboard.type(key)
            await page.keyboard.press("Enter")
            await expect(field(page, "a", "state")).to_have_text("ready")
            await expect(page.get_by_role("dialog")).to_be_hidden()
            await expect(page.locator("#curl")).to_contain_text("Authorization: Bearer $DRAFTD_API_KEY")
            await page.reload()
            await button(page, "Stop a").click()
            await expect(field(page, "a", "state")).to_have_text("stopped")
            assert await page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [
                1,
                0,
                "",
            ]
        assert key not in (await served.get("/")).text
        assert (await served.get("/api/status", headers=headers)).json["workers"][0]["state"] == "stopped"


async def test_a_lost_connection_looks_lost_and_nothing_green_stays(tmp_path: Path, browser: Browser) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    main = page.locator("main")
    async with serving(tmp_path, {"a": fake()}) as served:
        await page.goto(served.url)
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(main).to_have_css("filter", "none")
        await expect(page.get_by_role("alert")).to_be_hidden()
        port = served.daemon.settings.port
    await expect(page.locator("#connection")).to_have_text("connection lost")
    await expect(page.locator("#connection")).to_have_attribute("data-tone", "bad")
    await expect(main).to_have_css("filter", "grayscale(1)")
    said = page.get_by_role("alert")
    await expect(said).to_contain_text(re.compile(r"No connection to the daemon since \d\d:\d\d:\d\d"))
    await expect(said).to_contain_text(re.compile(r"trying again (in \d s|now)"))
    async with serving(tmp_path, {"a": fake()}, port=port):
        await expect(page.locator("#connection")).to_have_text("live", timeout=LIMIT * 1000)
        await expect(main).to_have_css("filter", "none")
        await expect(said).to_be_hidden()
    await context.close()


async def test_the_reason_of_each_state_is_told(tmp_path: Path, browser: Browser) -> None:
    tables = "[restart]\nmax_failures = 1\n"
    profiles = {
        "asleep": fake(top="autostart = false"),
        "loading": fake("--never-ready"),
        "never": fake("--exit-at-start", "3", tables=tables),
        "waits": fake(),
    }
    async with serving(tmp_path, profiles, ready=False) as served, opened(browser, served) as page:
        await expect(field(page, "asleep", "trouble")).to_have_text("starts with a request")
        await expect(field(page, "waits", "state")).to_have_text("waiting")
        await expect(field(page, "waits", "trouble")).to_contain_text("for its turn to load, after loading")
        await expect(field(page, "loading", "trouble")).to_contain_text("503 to POST /v1/chat/completions")
        await served.post("/api/workers/loading/stop")
        await expect(field(page, "loading", "trouble")).to_contain_text("by order; 'draftd start loading'")
        await expect(field(page, "never", "trouble")).to_contain_text("given up after 1 failures")


async def test_files_that_cannot_be_taken_are_told_until_they_are_mended(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        await expect(page.locator("#problem")).to_be_hidden()
        served.write("b", "modle = 1\n")
        served.daemon.try_reload()
        await expect(page.locator("#problem")).to_contain_text("b.toml:1: modle: unknown key")
        assert "modle" in (await served.get("/api/status")).json["reload_problem"]
        served.write("b", fake())
        served.daemon.try_reload()
        await expect(page.locator("#problem")).to_be_hidden()
        assert (await served.get("/api/status")).json["reload_problem"] is None


async def test_address_and_key_can_be_copied(tmp_path: Path, browser: Browser) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, opened(browser, served) as page:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await expect(page.locator("#address")).to_have_text(f"{served.url}/v1")
        await page.locator("#copy-address").click()
        await expect(page.locator("#copy-address")).to_have_text("Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == f"{served.url}/v1"
        await page.locator("#copy-key").click()
        await expect(page.locator("#copy-key")).to_have_text("Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == "local"


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
        await expect(first.locator("[data-drafter=lookup].thought")).to_have_text("hm")
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
        await page.get_by_label("Profile or prompt that is shown").select_option("prompt brief")
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
        await page.get_by_label("Profile or prompt that is shown").select_option("profile b")
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
                await _looks_well(page, size, "light", "bench")


async def test_beyond_four_profiles_there_is_a_table_the_failed_and_the_busy_first(
    tmp_path: Path, browser: Browser
) -> None:
    tables = QUICK + "[limits]\nconcurrency = 1\n"
    profiles = {name: fake(tables=tables) for name in "abcd"} | {
        "e": fake("--exit-at-start", "3", tables="[restart]\nmax_failures = 1\n"),
        "f": fake(top="share_engine = true"),
        "g": fake(top="share_engine = true"),
    }
    async with (
        serving(tmp_path, profiles, ready=False, max_loads=4) as served,
        opened(browser, served) as page,
    ):
        rows = page.locator("#worker-rows > tbody")
        await expect(rows).to_have_count(6)
        await expect(page.locator("#workers")).to_be_hidden()
        await served.until(lambda: all(served.state(name) == "ready" for name in "abcdfg"))
        asking = [asyncio.create_task(served.ask("c", "[[wait 2]]")) for _ in range(2)]
        await expect(rows.nth(0)).to_contain_text("the weights are made of cheese")
        await expect(rows.nth(1).locator("[data-field=now]")).to_have_text("1 + 1 waiting")
        names = await rows.locator("[data-field=name]").all_text_contents()
        assert names == ["e", "c", "a", "b", "d", "f\ng"]
        for size in (DESKTOP, PHONE, (1920, 1080)):
            await _looks_well(page, size, "dark", "many")
        await button(page, "Stop a").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Worker a").locator("[data-field=state]")).to_have_text("stopped")
        await expect(button(page, "Start a")).to_be_focused()  # although its row went to the end
        assert (await rows.locator("[data-field=name]").all_text_contents())[-1] == "a"
        await asyncio.gather(*asking)


async def test_the_last_hour_is_the_daemons_and_has_a_value_at_each_moment(
    tmp_path: Path, browser: Browser
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        await served.ask("a", "[[slow 0.02]]", stream=True)
        served.daemon.journal.tell()
        served.daemon.history.end_step()
        served.daemon.history.end_step()
        async with opened(browser, served) as page:
            await expect(page.locator("#hour-moment")).to_contain_text("Requests at work and waiting: 0")
            await expect(page.locator("#hour-moment")).not_to_contain_text("Speed")
            await page.get_by_label("Moment of the last hour").press("ArrowLeft")
            await expect(page.locator("#hour-moment")).to_contain_text(re.compile(r"Speed: a \d+"))
            await expect(page.locator("#hour-speed .series")).to_have_count(1)
            await expect(page.locator("#hour-memory-top")).to_contain_text("MB")


async def test_lines_for_machines_are_shown_only_if_asked_for(tmp_path: Path, browser: Browser) -> None:
    profile = fake("--says", 'draftd-engine {"odd": 1}')
    async with serving(tmp_path, {"a": profile}) as served, opened(browser, served) as page:
        await served.ask("a")
        lines = page.get_by_role("log")
        await expect(lines).to_contain_text("200 ")
        await expect(lines).not_to_contain_text("draftd-engine")
        await page.get_by_label("every line").check()
        await expect(lines.locator(".for-machines").first).to_contain_text("draftd-engine")


async def test_profiles_that_share_a_worker_say_so_and_show_its_one_log(
    tmp_path: Path, browser: Browser
) -> None:
    profiles = {name: fake(top="share_engine = true") for name in ("balanced", "fast")}
    async with serving(tmp_path, profiles) as served, opened(browser, served) as page:
        await expect(page.locator("#headline")).to_have_text("1 of 1 worker ready")
        await expect(field(page, "fast", "models")).to_have_text("fake; one worker with balanced")
        await expect(field(page, "balanced", "memory")).to_contain_text("MB")
        await expect(field(page, "fast", "memory")).to_have_text("shared")
        await served.ask("fast")
        await button(page, "Show the log of fast").click()
        await expect(page.locator("#lines")).to_contain_text("[fast] Draft tokens accepted: 5/10 (50%)")
        await served.ask("balanced")
        await expect(page.locator("#lines")).to_contain_text("[balanced] Draft tokens accepted: 5/10 (50%)")
