"""status: how a child's end is put into words, and what each of several profiles is told of their worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from draftd.profiles import Profile
from draftd.sharing import Group
from draftd.workers.status import LastExit, describe_code, of_members
from tests.web.test_status_report import READY


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "never started"),
        (0, "exit code 0"),
        (1, "exit code 1"),
        (2, "exit code 2: it refused its flags"),
        (70, "exit code 70: its generation thread died"),
        (98, "exit code 98: its port was taken"),
        (-9, "SIGKILL: something killed it, as the system does when memory is short"),
        (-15, "SIGTERM"),
        (-6, "SIGABRT: it aborted itself, as libraries and Metal do"),
        (-11, "SIGSEGV: it accessed memory that is not its own"),
        (-63, "signal 63"),
    ],
)
def test_an_exit_code_is_told_in_words(code: int | None, words: str) -> None:
    assert describe_code(code) == words
    assert str(LastExit(code, "exit", 0.0, ())) == f"exit ({words})"


def member(name: str, **fields: object) -> Profile:
    return Profile.model_validate({"name": name, "model": "big", "draft_model": "small", **fields})


def test_each_profile_has_its_own_drafters_and_length_and_the_memory_stands_once() -> None:
    members = (
        member("auto", num_draft_tokens="auto", drafters=("model",)),
        member("fast", num_draft_tokens=3),
    )
    status = replace(READY, name="auto", worker="auto")
    told = list(of_members(status, Group(members[0], members)))
    assert [(row.name, row.drafters, row.num_draft_tokens, row.auto_draft) for row in told] == [
        ("auto", ("model",), 8, True),
        ("fast", ("lookup", "model"), 3, False),
    ]
    assert [(row.shares_with, row.memory_bytes) for row in told] == [(("fast",), 1024), (("auto",), None)]
