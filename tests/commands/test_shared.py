"""Which profile, or model of a peer, a word on the command line stands for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from draftd.commands.shared import resolve
from draftd.errors import ConfigError
from draftd.ops.http import DaemonClient, RefusedError


class Daemon:
    """Answers as a daemon with two profiles, the second with the alias 'big', and one peer."""

    def __init__(self, *profiles: str) -> None:
        self._profiles = profiles

    def status(self) -> dict[str, Any]:
        rows = [{"name": name} for name in self._profiles]
        return {"workers": rows, "peers": [{"models": ["llama-fast", "big-llama"]}], "default_model": ""}

    def model(self, word: str) -> str:
        if word == "big" and self._profiles:
            return self._profiles[-1]
        raise RefusedError("url", 404, f"there is no model '{word}'")


@pytest.mark.parametrize(
    ("word", "own", "found"),
    [
        ("fast", True, "qwen-fast"),
        ("fast", False, "qwen-fast"),  # one's own come first
        ("big", False, "qwen-72b"),  # an alias comes before a part of a name
        ("llama-f", False, "llama-fast"),
        ("llama-fast", False, "llama-fast"),
        (None, False, "qwen-fast"),
    ],
)
def test_a_word_stands_for_a_profile_before_a_model_of_a_peer(
    word: str | None, own: bool, found: str
) -> None:
    client = cast(DaemonClient, Daemon("qwen-fast", "qwen-72b"))
    assert resolve(client, word, own=own) == found


@pytest.mark.parametrize(
    ("profiles", "word", "own", "reason"),
    [
        (("qwen-fast", "qwen-72b"), "llama", True, "there is no model 'llama'"),
        (("qwen-fast",), "llama", False, "'llama' fits several profiles; there are: big-llama, llama-fast"),
        (("qwen-fast", "qwen-72b"), "", False, "'' fits several profiles; there are: qwen-fast, qwen-72b"),
        ((), "llama", True, "the daemon has no profile of its own"),
    ],
)  # fmt: skip
def test_a_word_that_stands_for_none_or_for_several_is_refused(
    profiles: tuple[str, ...], word: str, own: bool, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(cast(DaemonClient, Daemon(*profiles)), word, own=own)
    assert str(caught.value) == reason
