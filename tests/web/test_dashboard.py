"""The dashboard in headless Chromium, on a daemon with scripted workers. Screenshots stay in test-output/."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from draftd.profiles import Profile
from draftd.protocol import Costs
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from draftd.web import status_report
from draftd.web.dashboard import FILES
from tests.harness import LIMIT, QUICK, fake, kill, serving
from tests.web.pages import DESKTOP, PHONE, button, looks_well, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

_worker = status_report.worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """The page of a daemon of which no worker runs."""
    profiles = {"a": fake(top="autostart = false")}
    async with serving(tmp_path_factory.mktemp("hosted"), profiles) as served:
        page = await browser.new_page()
        await page.goto(served.url)
        yield page
        await page.close()


def card(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=f"Worker {name}")


def field(page: Page, name: str, what: str) -> Any:
    return card(page, name).locator(f"[data-field={what}]")


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
        await expect(page.locator("#peers")).to_be_hidden()
        await expect(page.locator("#connection")).to_have_text("live")

        for size in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                await looks_well(page, size, scheme)


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
            await looks_well(page, DESKTOP, "dark", "refused")


async def test_changes_appear_without_a_reload_and_are_spoken(tmp_path: Path, browser: Browser) -> None:
    tables = "[restart]\ninitial_delay = 0.3\nmax_failures = 2\n[limits]\nconcurrency = 1\n"
    flag = tmp_path / "broken"
    profile = fake("--exit-file", str(flag), tables=tables)
    async with serving(tmp_path, {"a": profile, "b": fake()}) as served, opened(browser, served) as page:
        await expect(field(page, "a", "state")).to_have_text("ready")
        asking = [asyncio.create_task(served.ask("a", "[[wait 0.4]]")) for _ in range(3)]
        await expect(field(page, "a", "queue")).to_have_text("2")
        await expect(field(page, "a", "active")).to_have_text("1")
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
        await expect(
            button(page, "Start a")
        ).to_be_hidden()  # to restart it is the same, and one button is enough
        flag.unlink()
        await button(page, "Restart a").click()
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
        await expect(field(page, "a", "active")).to_have_text("1")
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
        ]  # "": the summary of the curl command
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
    await button(page, "Restart a").click()
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("There is no connection to the daemon: nothing was done.")
    await page.keyboard.press("Escape")
    await expect(notice).to_be_hidden()
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
        await expect(rows.nth(1).locator("[data-field=now]")).to_have_text("1 at work, 1 waiting")
        names = await rows.locator("[data-field=name]").all_text_contents()
        assert names == ["e", "c", "a", "b", "d", "f\ng"]
        for size in (DESKTOP, PHONE, (1920, 1080)):
            await looks_well(page, size, "dark", "many")
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
            await expect(page.locator("#hour-queue-now")).to_have_text("0")
            await expect(page.locator("#hour-speed-now")).to_have_text("–")
            await page.get_by_label("Moment of the last hour").press("ArrowLeft")
            await expect(page.locator("#hour-speed-now")).to_have_text(re.compile(r"^a \d+.* tokens/s$"))
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
        asking = asyncio.create_task(served.ask("fast", "[[wait 0.5]]"))
        await served.until_queue("fast")
        served.daemon.history.end_step()
        queues = (await served.get("/api/history")).json["profiles"].values()
        assert sum(profile["queue"][-1] for profile in queues) == 1  # counted once
        await asking
