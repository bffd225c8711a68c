"""Takes the README's pictures of the dashboard and of a terminal, light and dark: `python -m tests.docs.picture`.

They show the demo daemon after a few real requests to each preset, and are compared with what it says itself. The
speeds in them are this machine's: take them while it has nothing else to do. Needs Chromium.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

from tests.docs.demo import LIMIT, Demo, demo_daemon
from tests.docs.pages import ROOT
from tests.harness import is_free

WIDTH, HEIGHT = 1280, 1600
COLUMNS = 100
QUESTIONS = (
    "What is speculative decoding?", "What is a draft model?", "Tell me a story", "What are the presets?",
    "How do I connect OpenCode?", "Write a Python function",
)  # fmt: skip
PRESETS = ("auto", "balanced", "fast", "max")
TYPED = (("status",), ("logs", "-n", "4"), ("run", "What is a draft model?"))
SCHEMES: dict[Literal["light", "dark"], TerminalTheme] = {
    "light": DEFAULT_TERMINAL_THEME,
    "dark": DIMMED_MONOKAI,
}
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich's is fetched from another site


def main() -> None:
    """Write docs/dashboard-*.png and docs/terminal-*.svg, and say what they show."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("this needs Chromium (Debian package chromium)")
    with (
        tempfile.TemporaryDirectory() as folder,
        demo_daemon(Path(folder), DRAFTD_PEERS="[]", **_usual_ports()) as demo,
        sync_playwright() as play,
    ):
        for question in QUESTIONS:
            for preset in PRESETS:
                _ask(demo, f"qwen2.5-3b-speculative-{preset}", question)
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme in SCHEMES:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
            page.goto(demo.url)
            _take(page, ROOT / "docs" / f"dashboard-{scheme}.png")
            said = _compared(page, json.loads(demo.get("/api/status")))
        browser.close()
        _type(demo)
    print(f"{said}\nload average {os.getloadavg()[0]:.1f}: the speeds are worth something if it is under 1")


def _usual_ports() -> dict[str, str]:
    """Those that a reader will see, if nobody has them here."""
    usual = {"DRAFTD_PORT": 8080, "DRAFTD_BASE_PORT": 8000}
    are_free = all(is_free(port) for port in (8080, *range(8000, 8004)))
    return {name: f"{port}" for name, port in usual.items()} if are_free else {}


def _ask(demo: Demo, model: str, question: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 120}
    request = urllib.request.Request(
        f"{demo.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        answer.read()


def _take(page: Page, file: Path) -> None:
    """Take a picture of the top of the page, down to the last row of workers."""
    card = page.get_by_role("article", name=f"Worker qwen2.5-3b-speculative-{PRESETS[-1]}")
    card.locator("[data-field=acceptance]", has_text="%").wait_for(timeout=LIMIT * 1000)
    box = card.bounding_box()
    assert box is not None
    page.screenshot(path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 16})


def _compared(page: Page, status: dict[str, Any]) -> str:
    """The headline and the figures of the page, which must be those of the daemon."""
    said = [page.locator("#headline").inner_text()]
    for row in status["workers"]:
        card = page.get_by_role("article", name=f"Worker {row['name']}")
        names = ("acceptance", "speed", "requests")
        shown = [card.locator(f"[data-field={name}]").inner_text() for name in names]
        speed = row["tokens_per_second"]
        known = [
            f"{row['acceptance']['ratio']:.0%}".replace("%", " %"),
            f"{speed:.{1 if speed < 100 else 0}f}",
        ]
        assert shown == [*known, f"{row['requests']}"], (row["name"], shown, known)
        said.append(f"{row['name']}: {shown[0]} accepted, {shown[1]} tokens/s")
    return "\n".join(said)


def _type(demo: Demo) -> None:
    """Run a few commands as somebody would, and draw what they print."""
    demo.environment.update(FORCE_COLOR="1", COLUMNS=f"{COLUMNS}", TERM="xterm-256color")
    screen = Text()
    for words in TYPED:
        done = demo.call(["draftd", *words])
        assert done.returncode == 0, done.stderr
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        screen.append(f"$ draftd {shown}\n", "bold").append_text(Text.from_ansi(done.stdout.strip("\n")))
        screen.append("\n\n")
    screen.rstrip()
    for scheme, theme in SCHEMES.items():
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(screen)
        drawn = console.export_svg(title="draftd", theme=theme, unique_id=f"draftd-{scheme}")
        (ROOT / "docs" / f"terminal-{scheme}.svg").write_text(FONT.sub("", drawn), "utf-8")


if __name__ == "__main__":
    main()
