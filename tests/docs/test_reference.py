"""The README says what the models say, and names verbs and files that there are."""

from __future__ import annotations

import re

from draftd.cli import app
from tests.readme import README, sections, with_sections

TEXT = README.read_text("utf-8")


def test_the_reference_is_made_from_the_models() -> None:
    assert with_sections(TEXT) == TEXT, "python -m tests.readme makes it anew"


def test_every_key_and_setting_is_described() -> None:
    assert "None |" not in "".join(sections().values())


def test_every_verb_is_in_the_readme() -> None:
    verbs = {
        command.name or (command.callback and command.callback.__name__)
        for command in app.registered_commands
    }
    verbs |= {group.name for group in app.registered_groups}
    assert verbs
    assert not {verb for verb in verbs if f"`draftd {verb}" not in TEXT and f"{verb}" not in _orders()}


def _orders() -> set[str]:
    """'restart|start|stop' in one row."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"`draftd ([\w\\|]+) PROFILE`", TEXT))))


def test_every_picture_and_file_that_is_linked_is_there() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert linked
    assert not [path for path in linked if not (README.parent / path).exists()]
