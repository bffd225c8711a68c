"""Every link within the repository leads somewhere, and no page names a place on the machine that wrote it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, inline_code, links

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_every_internal_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page not in reached] == []


def test_the_files_that_the_architecture_names_are_there() -> None:
    named = [code for code in inline_code(ROOT / "docs/architecture.md") if re.search(r"\w(\.py|/)$", code)]
    roots = (ROOT, ROOT / "daemon/draftd")
    assert named
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


@every_page
def test_no_page_names_a_machine(page: Path) -> None:
    assert re.findall(r"/work/\S*|/root/\S*|/home/\w+|/Users/\w+", page.read_text("utf-8")) == []
