"""`[[peers]]` in the settings: what an address may be, and what is refused, without showing any of a key."""

from __future__ import annotations

import pytest

from draftd.errors import ConfigError
from draftd.peer_tables import MAX_PEERS
from draftd.settings import load_settings
from draftd.settings_file import config_dir

KEY = "canary-key-7f3a"


def write(text: str) -> None:
    path = config_dir() / "draftd.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def peer(url: str, *more: str, key: str = KEY) -> str:
    return "\n".join(["[[peers]]", f'url = "{url}"', f'api_key = "{key}"' if key else "", *more, ""])


def refusal() -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert KEY not in str(caught.value)
    (problem,) = caught.value.problems
    return f"{problem.line}: {problem.reason}"


@pytest.mark.parametrize(
    ("url", "meant", "here", "encrypted"),
    [
        ("http://mini.local:8080", "http://mini.local:8080", False, False),
        (" http://mini.local:8080/v1/ ", "http://mini.local:8080", False, False),
        ("https://studio.example", "https://studio.example:443", False, True),
        ("http://192.168.1.7", "http://192.168.1.7:80", False, False),
        ("HTTP://LocalHost:9", "http://localhost:9", True, False),
        ("http://[::1]:8080", "http://[::1]:8080", True, False),
        ("http://127.0.0.2:1", "http://127.0.0.2:1", True, False),
    ],
)
def test_a_peer_is_named_by_its_address(url: str, meant: str, here: bool, encrypted: bool) -> None:
    write(peer(url, "weight = 2"))
    (found,) = load_settings().peers
    assert (found.url, found.is_here, found.is_encrypted, found.weight) == (meant, here, encrypted, 2)
    assert found.name == meant.partition("://")[2]
    assert KEY not in repr(found)


@pytest.mark.fault(156)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (peer("mini.local:8080"), "2: peers.url: a peer is named like"),
        (peer("ftp://mini"), "2: peers.url: a peer is named like"),
        (peer("http://"), "2: peers.url: a peer is named like"),
        (peer("http://mini:99999"), "2: peers.url: a peer is named like"),
        (peer("http://mi ni"), "2: peers.url: a peer is named like"),
        (peer(f"http://me:{KEY}@mini"), "2: peers.url: the key of a peer belongs in api_key"),
        (peer("http://mini/llm"), "2: peers.url: a peer is another server as a whole"),
        (peer("http://mini", key=""), "1: peers: a peer on another machine needs an api_key"),
        (peer("http://mini", key=f"{KEY}\\u0007"), "3: peers.api_key: a key is a string of printable"),
        (peer("http://mini", "weight = 0"), "4: peers.weight: it must be more than 0"),
        (peer("http://mini", 'ca_file = "x"'), "1: peers: ca_file is for an https url"),
        (peer("http://mini", f'apikey = "{KEY}"'), "4: peers.apikey: unknown key; did you mean api_key?"),
        (peer("http://a") + peer("http://mini", key=""), "4: peers: a peer on another machine"),
        (peer("http://a") + peer("http://a/v1"), "1: peers: the peer a:80 is listed more than once"),
        ("".join(peer(f"http://m{n}") for n in range(MAX_PEERS + 1)), "1: peers: there may be"),
        ("peers = 3", "1: peers: a list is expected"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line_and_without_the_key(text: str, words: str) -> None:
    write(text)
    assert refusal().startswith(words)


def test_on_this_machine_no_key_is_needed_and_a_variable_takes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTD_PEERS", '[{"url": "http://127.0.0.1:8081"}]')
    assert [one.name for one in load_settings().peers] == ["127.0.0.1:8081"]
    monkeypatch.setenv("DRAFTD_PEERS", f"http://mini {KEY}")
    assert "in a variable they stand as JSON" in refusal()
