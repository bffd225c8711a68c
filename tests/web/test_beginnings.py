"""The beginnings that requests share: learnt from requests, read from files, and kept for the next daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draftd.profiles import Profile, ProfileSet
from draftd.protocol import BEGINNINGS_FILE, PROFILE_HEADER, PromptStore
from draftd.web import beginnings as module
from draftd.web.beginnings import Beginnings
from draftd.web.request_body import Forward, prepare
from draftd.web.router import Router

LONG = "Mind the draft model. " * 100
OURS = Profile(name="a", model="m", draft_model="d", num_draft_tokens=3)
FOREIGN = Profile(name="b", model="m", command=("serve", "{port}"))


def request(text: str = "hi", system: str = LONG, profile: Profile = OURS, **more: Any) -> Forward:
    messages = [{"role": "system", "content": system}] if system else []
    body = {"messages": [*messages, {"role": "user", "content": text}], **more}
    return prepare(body, "chat.completions", profile, "", "default_model", profile.name)


def note(beginnings: Beginnings, forward: Forward) -> None:
    """As the proxy does."""
    if forward.beginning is not None:
        beginnings.note("a", forward.beginning, forward.headers)


Make = Callable[..., Beginnings]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Each call makes another daemon's, on the same folder."""
    monkeypatch.setattr(module, "in_a_thread", lambda call, *of: call(*of))
    monkeypatch.setattr(module, "later", lambda _, call: call())
    router = Router(ProfileSet({"a": OURS, "b": FOREIGN}), "a")
    store = PromptStore(str(tmp_path / "kept"), 10**9, 1.0)
    return lambda *preload, kept=True: Beginnings(router, preload, store if kept else None)


def bodies(beginnings: Beginnings, *names: str) -> list[dict[str, Any]]:
    return [json.loads(one.payload) for one in beginnings.of(names or ("a",))]


def test_what_two_requests_began_with_is_read_by_one_of_one_token(made: Make) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    beginnings = made()
    note(beginnings, request("one", tools=tools, temperature=0.9, max_tokens=500))
    assert bodies(beginnings) == []
    note(beginnings, request("two", tools=tools))
    [body] = bodies(beginnings)
    assert body["messages"] == [{"role": "system", "content": LONG}, {"role": "user", "content": ""}]
    assert (body["tools"], body["max_tokens"], body["num_draft_tokens"]) == (tools, 1, 3)
    assert beginnings.of(["a"])[0].headers[PROFILE_HEADER] == "a"
    assert bodies(beginnings, "b") == []


def test_the_most_common_of_the_last_requests_count(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 6)
    beginnings = made()
    for number in (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4):
        note(beginnings, request(system=f"{number} {LONG}"))
    assert [body["messages"][0]["content"][0] for body in bodies(beginnings)] == ["4", "3"]


@pytest.mark.parametrize(
    "forward",
    [
        request(system=""),
        request(system="short"),
        request(system="x" * 2**21),
        request(profile=FOREIGN),
        request(count_only=True),
    ],
    ids=["nothing", "short", "too long", "foreign", "counted"],
)
def test_what_is_not_worth_it_is_left(made: Make, forward: Forward) -> None:
    beginnings = made()
    for _ in range(3):
        note(beginnings, forward)
    assert bodies(beginnings) == []


def test_the_next_daemon_knows_it_from_a_file_of_ours_alone(made: Make, tmp_path: Path) -> None:
    for _ in range(2):
        note(beginnings := made(), request())
        note(beginnings, request())
    file = tmp_path / "kept" / BEGINNINGS_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert bodies(made()) == bodies(beginnings) != []
    assert bodies(made(kept=False)) == []
    for damaged in ("{", "[]", '{"a": [{}]}', '{"a": 7}'):
        file.write_text(damaged)
        assert bodies(made()) == []


def test_files_are_read_first_as_requests_to_each_profile_of_ours(made: Make, tmp_path: Path) -> None:
    (tmp_path / "agent.txt").write_text("You are an agent.")
    beginnings = made(tmp_path / "agent.txt", tmp_path / "nowhere.txt")
    [body] = bodies(beginnings, "a", "b")
    assert body["messages"][0] == {"role": "system", "content": "You are an agent."}
    assert (body["model"], body["max_tokens"], body["num_draft_tokens"]) == ("default_model", 1, 3)
    assert beginnings.of(["a"])[0].name == "agent.txt"


def test_what_the_user_has_cleared_does_not_come_back(made: Make, tmp_path: Path) -> None:
    beginnings = made()
    for system in (LONG, LONG, LONG + "Cleared?", LONG + "Cleared?"):
        note(beginnings, request(system=system))
    file = tmp_path / "kept" / BEGINNINGS_FILE
    file.unlink()
    for _ in range(3):
        note(beginnings, request(system="Anew. " * 400))
    for _ in range(2):
        note(beginnings, request(system="Anew. " * 400))
    assert "Cleared?" not in file.read_text()
    assert "Anew." in file.read_text()


def test_two_agents_that_take_turns_are_not_written_down_each_time(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[float] = []
    monkeypatch.setattr(module, "later", lambda seconds, _: saved.append(seconds))
    beginnings = made()
    for number in range(100):
        note(beginnings, request(system=LONG + str(number % 2)))
    assert saved == [0.0]
