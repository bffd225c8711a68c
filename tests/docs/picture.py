"""Takes the README's pictures of the dashboard, light and dark: `python -m tests.docs.picture`.

They show the demo daemon after a few real requests to each preset. Needs Chromium.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

from tests.docs.demo import LIMIT, Demo, demo_daemon
from tests.docs.pages import ROOT

WIDTH, HEIGHT = 1280, 1000
QUESTIONS = (
    "What is speculative decoding?", "What is a draft model?", "Tell me a story", "What are the presets?",
    "How do I connect OpenCode?", "Write a Python function",
)  # fmt: skip
PRESETS = ("auto", "balanced", "fast")


def main() -> None:
    """Write docs/dashboard-light.png and docs/dashboard-dark.png."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("this needs Chromium (Debian package chromium)")
    with (
        tempfile.TemporaryDirectory() as folder,
        demo_daemon(Path(folder)) as demo,
        sync_playwright() as play,
    ):
        for question in QUESTIONS:
            for preset in PRESETS:
                _ask(demo, f"qwen2.5-3b-speculative-{preset}", question)
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
            page.goto(demo.url)
            _take(page, ROOT / "docs" / f"dashboard-{scheme}.png")
        browser.close()


def _ask(demo: Demo, model: str, question: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 120}
    request = urllib.request.Request(
        f"{demo.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        answer.read()


def _take(page: Page, file: Path) -> None:
    """Take a picture of the top of the page, down to the first row of workers."""
    card = page.get_by_role("article", name="Worker qwen2.5-3b-speculative-fast")
    card.locator("[data-field=acceptance]", has_text="%").wait_for(timeout=LIMIT * 1000)
    box = card.bounding_box()
    assert box is not None
    page.screenshot(path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 16})


if __name__ == "__main__":
    main()
