"""The generated parts say what the code says, and every command has its row."""

from __future__ import annotations

import re

import pytest
import typer.main

from draftd.cli import app
from tests.docs.pages import PAGES, ROOT
from tests.docs.pairs import GPU_SHARE, PAIRS, memory
from tests.docs.reference import PARTS, parts_in, with_parts

README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_are_up_to_date(page: object) -> None:
    text = (ROOT / str(page)).read_text("utf-8")
    assert with_parts(text) == text, "`python -m tests.docs` makes them anew"


def test_every_part_stands_in_one_page() -> None:
    found = [name for page in PAGES for name in parts_in(page.read_text("utf-8"))]
    assert sorted(found) == sorted(PARTS)


def test_every_key_and_setting_is_described() -> None:
    assert "| None |" not in "".join(make() for make in PARTS.values())


def test_every_verb_is_in_the_readme() -> None:
    verbs = getattr(typer.main.get_command(app), "commands", {}).keys()
    assert verbs
    said = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^\| (`draftd.*?) \|", README, re.MULTILINE))))
    assert sorted(verbs - said) == []


def test_every_pair_fits_the_mac_that_it_is_named_for() -> None:
    assert [pair for pair in PAIRS if memory(*pair[1:]) > GPU_SHARE * pair[0] * 1.02] == []


def test_the_readme_can_be_read_at_once() -> None:
    assert len(README.splitlines()) <= 160
