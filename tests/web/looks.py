"""States of the dashboard that a user may meet, made up; `python -m tests.web.looks FOLDER` takes their pictures.

They are for looking at: what can be told without eyes is in test_dashboard_looks.py.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from draftd.web.status_report import iso
from tests.web.made_pages import PRESETS, Made, crashed, group, hour, lines, peer, request, row, shown

if TYPE_CHECKING:
    from playwright.async_api import Page

WIDTHS = (1920, 1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
RATIOS = (0.81, 0.77, 0.9, 0.62, 0.55, 0.84, 0.71, 0.88, 0.93, 0.47)
SPEEDS = (88.1, 92.4, 101.7, 79.0, 71.3, 90.9, 86.5, 97.2, 104.4, 66.0)
BROKEN = "/home/me/.config/draftd/profiles/max.toml:3: draft_modle: unknown key; did you mean draft_model?"


async def _as_it_is(page: Page) -> None:
    """Nothing to do."""


@dataclass(frozen=True)
class Look:
    """A state, and what a user does in it."""

    made: Made
    act: Callable[[Page], Awaitable[None]] = _as_it_is


def _presets(**changed: Any) -> list[dict[str, Any]]:
    return [row(name, ratios=RATIOS, speeds=SPEEDS, **changed) for name in PRESETS]


def _many(count: int) -> list[dict[str, Any]]:
    names = [
        f"qwen3-{size}b-{use}" for size in (4, 8, 14, 32) for use in ("chat", "code", "fast", "long", "max")
    ]
    names += [f"llama-3.3-70b-instruct-{number}" for number in range(count)]
    made = [
        crashed(names[0]), crashed(names[1], "backoff", due=time.time() + 12),
        row(names[2], ratios=RATIOS, speeds=SPEEDS, active=4, queue=2),
        row(names[3], "starting", reason="it loads: 4.1 of 8.2 GB read; 503 to POST /v1/chat/completions"),
        row(names[4], "waiting", reason=f"for its turn to load, after {names[3]}", queue=3),
        row(names[5], "stopped", reason=f"by order; 'draftd start {names[5]}' starts it"),
    ]  # fmt: skip
    shared = tuple(names[6:9])
    for name in shared:
        others = tuple(one for one in shared if one != name)
        made.append(row(name, worker=shared[0], shares_with=others, ratios=RATIOS, speeds=SPEEDS))
    asleep = [row(name, "asleep", reason="starts with a request") for name in names[9:count]]
    return made + asleep


def _requests() -> list[dict[str, Any]]:
    figures = ("status", "seconds", "tokens", "tokens_per_second", "proposed", "accepted", "first_token",
               "prompt_tokens", "cached_tokens")  # fmt: skip
    open_one: dict[str, Any] = dict.fromkeys(figures) | {"phase": "waiting"}
    made = [request(number, captured=True) for number in range(4, 14)]
    refused = open_one | {"phase": "ended", "status": 404, "seconds": 0.0, "profile": None, "waited": None}
    made.insert(0, request(3, **refused, error="there is no model 'nobody'"))
    made.insert(0, request(2, status=499, agent="python-httpx/0.28.1", tokens=12))
    made.insert(0, request(1, **open_one | {"phase": "answering", "first_token": 0.4}))
    made.insert(0, request(0, **open_one))
    return made[::-1]


def _busy(**changed: Any) -> Made:
    rows = _presets(active=2)
    rows[1] = row(PRESETS[1], ratios=(0.4,) * 9, speeds=(43.0,) * 9, active=4, queue=3)
    speeds = dict(zip(PRESETS, (90.0, 45.0, 80.0, 70.0), strict=True))
    logs = {name: lines(name) for name in PRESETS}
    return Made(rows, _requests(), hour=hour(speeds), logs=logs, **changed)


def _report() -> dict[str, Any]:
    spread = {"median": 41.2, "low": 39.9, "high": 44.4}
    first = {"median": 0.312, "low": 0.3, "high": 0.4}
    factors = (("no drafting", None), ("3", 1.31), ("5", 1.52), ("7", 0.94), ("auto", 1.6))
    cells: list[dict[str, Any]] = [
        {"speed": spread, "first_token": first, "kind": kind, "temperature": heat, "variant": variant,
         "acceptance": factor and 0.71, "speed_up": factor and {"median": factor}}
        for kind in ("chat", "code", "edit a file") for heat in (0, 0.7) for variant, factor in factors
    ]  # fmt: skip
    verdict = [
        "overall: auto is best, 1.60 times as fast as no drafting.",
        "chat: 7 costs time: 0.94 times as fast.",
    ]
    return {"verdict": verdict, "cells": cells, "model": "mlx-community/Qwen3-8B-4bit", "busy": 61.0, "runs": 3,
            "draft_model": "mlx-community/Qwen3-0.6B-4bit", "machine": "Apple M4 Pro, 24 GB, macOS 26.2",
            "max_tokens": 256}  # fmt: skip


BENCH: dict[str, Any] = {
    "profile": PRESETS[1], "quick": True, "began": 1_790_000_000.0, "done": 17, "total": 60, "running": True,
    "doing": "run 2 of 3, code, 5 draft tokens, temperature 0.7", "stopped": False, "error": None,
}  # fmt: skip


def _answer() -> list[dict[str, Any]]:
    said = [("A", None), (" draft model is", "model"), (" a", None), (" small model that", "lookup"),
            (" proposes", None), (" tokens", "grammar"), (".", "model")]  # fmt: skip
    pieces = [("reasoning", "They ask about drafting.", None), *(("content", *piece) for piece in said)]
    choices = [
        {"delta": {part: text}, "drafters": {part: [{"text": text, "drafter": who}]}}
        for part, text, who in pieces
    ]
    timings = {"predicted_per_second": 91.3, "draft_n": 9, "draft_n_accepted": 8}
    ending = {"choices": [], "usage": {"completion_tokens": 11}, "timings": timings}
    return [*({"choices": [choice]} for choice in choices), ending]


async def _chats(page: Page) -> None:
    await page.locator("#chat-text").fill("What is a draft model, and when does it pay to have one?")
    await page.keyboard.press("Enter")
    await page.locator("#chat-talk .assistant .note", has_text="draft tokens").wait_for()
    await page.locator("summary").click()


async def _opens_details(page: Page) -> None:
    for number in (2, 3, 5):
        await page.locator("#request-rows button.opening").nth(number).click()
    await page.locator("#request-table").scroll_into_view_if_needed()


async def _hovers(page: Page) -> None:
    await page.locator("#hour-speed").hover(position={"x": 200, "y": 20})


async def _loses(page: Page) -> None:
    await page.locator("#lost").wait_for()


def looks() -> dict[str, Look]:
    """All of them, by name."""
    loading = [
        row(
            PRESETS[0],
            "starting",
            reason="it loads: 1.1 of 2.0 GB read; 503 to POST /v1/chat/completions",
            active=1,
        ),
        row(PRESETS[1], "waiting", reason=f"for its turn to load, after {PRESETS[0]}", queue=3),
        row(PRESETS[2], "asleep", reason="starts with a request"),
        row(PRESETS[3], "stopped", reason=f"by order; 'draftd start {PRESETS[3]}' starts it"),
    ]
    failed = [crashed(PRESETS[0]), crashed(PRESETS[1], "backoff", due=time.time() + 12), *_presets()[2:]]
    peers = [
        peer("http://10.0.0.7:8080", "well", {"qwen3-32b": "ready", "qwen3-8b-with-a-long-name": "asleep"},
             weight=2.0),
        peer("https://studio.local:8443", "out", {"llama-3.3-70b": "ready"}, reason="connection refused",
             due=status_time(20), last_failure={"at": status_time(-40), "reason": "connection refused"}),
        peer("http://10.0.0.9:8080", "new", {}, requests={}),
    ]  # fmt: skip
    done = BENCH | {"running": False, "done": 60}
    return {
        "fresh": Look(Made([row(name) for name in PRESETS])),
        "busy": Look(_busy()),
        "one": Look(Made(_presets()[:1], _requests()[:2])),
        "failed": Look(Made(failed, _requests())),
        "loading": Look(Made(loading, _requests())),
        "lost": Look(_busy(lost=True), _loses),
        "many-12": Look(Made(_many(12), _requests(), hour=hour(dict.fromkeys(PRESETS, 40.0)))),
        "many-50": Look(Made(_many(50), _requests(), hour=hour({f"qwen3-{n}": 40.0 + n for n in range(50)}))),
        "peers": Look(Made(_presets()[:2], _requests(), peers=peers)),
        "front": Look(Made([], peers=peers)),
        "group": Look(Made([group("qwen3-32b-on-two-macs"), *_presets()[:1]], _requests())),
        "broken": Look(_busy(problem=BROKEN)),
        "bench-running": Look(_busy(bench=BENCH)),
        "bench-done": Look(_busy(bench=done, report=_report())),
        "chat": Look(_busy(answer=_answer()), _chats),
        "details": Look(_busy(), _opens_details),
        "capture": Look(_busy(capture=True), _opens_details),
        "hour": Look(_busy(), _hovers),
        "key": Look(_busy(key="a key")),
    }


def status_time(seconds: float) -> str:
    """That many seconds from now, as the status has it."""
    return iso(time.time() + seconds)


async def take(folder: Path, names: list[str]) -> None:
    """Take the pictures of these states, or of all."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, look in looks().items():
            if names and name not in names:
                continue
            async with shown(look.made) as address:
                for width in WIDTHS:
                    for scheme in SCHEMES:
                        page = await browser.new_page(
                            viewport={"width": width, "height": 1080}, color_scheme=scheme
                        )
                        await page.goto(address)
                        await page.wait_for_timeout(300)
                        await look.act(page)
                        await page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                        await page.close()
        await browser.close()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(take(Path(sys.argv[1]), sys.argv[2:]))
