"""status: how a child's end is put into words."""

from __future__ import annotations

import pytest

from draftd.workers.status import LastExit, describe_code


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "never started"),
        (0, "exit code 0"),
        (1, "exit code 1"),
        (2, "exit code 2: it refused its flags"),
        (70, "exit code 70: its generation thread died"),
        (98, "exit code 98: its port was taken"),
        (-9, "SIGKILL"),
        (-15, "SIGTERM"),
        (-6, "SIGABRT"),
        (-63, "signal 63"),
    ],
)
def test_an_exit_code_is_told_in_words(code: int | None, words: str) -> None:
    assert describe_code(code) == words
    assert str(LastExit(code, "exit", 0.0, ())) == f"exit ({words})"
