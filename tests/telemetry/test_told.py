"""The words in which people read about events and requests."""

from __future__ import annotations

import pytest

from draftd.telemetry.request_record import RequestRecord, client_name
from draftd.telemetry.told import in_column, of_event, of_request, short_names


@pytest.mark.parametrize(
    ("event", "who", "text", "tone"),
    [
        (
            {"event": "worker ready", "worker": "a", "state": "ready", "reason": "after 2.0 s, on port 8000"},
            "a",
            "ready: after 2.0 s, on port 8000",
            "good",
        ),
        (
            {"event": "worker stopped", "worker": "a", "state": "stopped", "reason": ""},
            "a",
            "stopped",
            "plain",
        ),
        (
            {
                "event": "reload refused; the old profiles stay in force",
                "reason": ["not valid", "  a.toml:1: x\x1b[2J", "  b.toml: y"],
                "level": "error",
            },
            "",
            "reload refused; the old profiles stay in force: not valid\n  a.toml:1: x\\x1b[2J\n  b.toml: y",
            "bad",
        ),
        ({"event": "profiles applied", "changed": []}, "", "profiles read; nothing changed", "plain"),
        (
            {"event": "profiles applied", "changed": ["a", "b"]},
            "",
            "profiles read; new or changed: a, b",
            "plain",
        ),
        (
            {"event": "profiles applied", "changed": [*"abcdefghijk"]},
            "",
            "profiles read; new or changed: a, b, c, d, e, f, g, h and 3 more",
            "plain",
        ),
        (
            {"event": "draftd stops", "open_requests": 1, "drain_timeout": 30.0},
            "",
            "stopping: 1 request may finish within 30 s; Ctrl-C again ends it now",
            "plain",
        ),
        (
            {"event": "draftd stops", "open_requests": 2, "drain_timeout": 2.5},
            "",
            "stopping: 2 requests may finish within 2.5 s; Ctrl-C again ends them now",
            "plain",
        ),
        ({"event": "draftd stops", "open_requests": 0, "drain_timeout": 30.0}, "", "stopping", "plain"),
        ({"event": "odd", "level": "error", "n": 1, "logger": "x"}, "", "odd: n=1", "bad"),
        ({"event": "odd", "level": "warning", "worker": "a"}, "a", "odd", "low"),
        ({"event": "odd", "level": "error", "exception": "Traceback"}, "", "odd\nTraceback", "bad"),
    ],
)
def test_an_event_is_a_sentence(event: dict[str, object], who: str, text: str, tone: str) -> None:
    told = of_event(event, 0.0)
    assert (told.who, told.text, told.tone) == (who, text, tone)


def made(**fields: object) -> RequestRecord:
    record = RequestRecord("1", "chat.completions", "curl/8", began=0.0, worker="a", phase="ended")
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_a_request_is_a_line_of_figures() -> None:
    record = made(
        status=200, tokens=60, tokens_per_second=149.04, proposed=48, accepted=36, seconds=0.5, error=""
    )
    told = of_request(record)
    assert told.who == "a"
    assert told.text == "200     60 tokens    149 tok/s   75% accepted   0.50 s  curl/8"
    assert of_request(made(status=200, tokens=1, seconds=0.5)).text == (
        "200      1 tokens      – tok/s     – accepted   0.50 s  curl/8"
    )


def test_what_went_wrong_is_in_the_line_of_its_request() -> None:
    refused = of_request(made(status=404, seconds=0.01, error="there is no model '\x1b[2J'\nmore"))
    assert refused.text == "404   0.01 s  curl/8  there is no model '\\x1b[2J'"
    assert refused.tone == "low"
    assert of_request(made(status=499, seconds=200.0)).text == "499    200 s  curl/8  the client left"
    assert of_request(made(status=503, seconds=1.0, error="x" * 999)).tone == "bad"
    assert len(of_request(made(status=503, seconds=1.0, error="x" * 999)).text) < 200


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("", ""),
        ("curl/8.5.0", "curl/8.5.0"),
        ("OpenAI/Python 1.99", "OpenAI/Python"),
        ("Mozilla/5.0 (X11) Chrome/131 Safari/537.36", "Safari/537.36"),
        ("x" * 99, "x" * 40),
        ("a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_a_client_is_called_what_it_calls_itself_in_short(agent: str, name: str) -> None:
    assert client_name(agent) == name


def test_names_lose_the_beginning_that_all_share() -> None:
    assert short_names(["qwen-3b-fast", "qwen-3b-max"]) == {"qwen-3b-fast": "fast", "qwen-3b-max": "max"}
    assert short_names(["qwen-3b-fast"]) == {"qwen-3b-fast": "qwen-3b-fast"}
    assert short_names(["a-fast", "b-fast"]) == {"a-fast": "a-fast", "b-fast": "b-fast"}
    assert short_names(["a-b", "a-b-c"]) == {"a-b": "b", "a-b-c": "b-c"}
    assert short_names([]) == {}


def test_names_in_front_of_lines_are_a_column() -> None:
    names = ["fast", "balanced"]
    assert [in_column(name, names) for name in names] == ["fast      ", "balanced  "]
    assert in_column("", names) == ""
    assert in_column("a", ["x" * 90]) == "a" + " " * 25
    assert in_column("gone", []) == "gone  "
