"""configure: the daemon's own log, and what must never be in it."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from draftd.telemetry.logging_setup import REDACTED, Format, configure, telling
from draftd.telemetry.rotating_file import RotatedStream
from draftd.telemetry.told import Told

CANARY = "canary-7f3a"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    before, of_structlog = (root.handlers[:], root.level), structlog.get_config()
    yield
    root.handlers[:], root.level = before
    structlog.configure(**of_structlog)


def events(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_has_all_that_an_event_says() -> None:
    out = io.StringIO()
    configure(stream=out)
    structlog.get_logger("draftd.app").info("worker ready", profile="fast", seconds=1.5)
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    (ours, theirs) = events(out)
    assert str(ours.pop("timestamp")).endswith("Z")
    assert ours == {
        "event": "worker ready",
        "profile": "fast",
        "seconds": 1.5,
        "level": "info",
        "logger": "draftd.app",
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow: callback", "warning", "asyncio")


def test_people_get_a_sentence_a_line_and_no_colours() -> None:
    out = Terminal()
    configure("console", stream=out)
    ready = {"worker": "fast", "state": "ready", "reason": "after 1.5 s, on port 8000", "was": "starting"}
    structlog.get_logger().info("worker ready", **ready)
    structlog.get_logger().warning("hello", other=1)
    lines = out.getvalue().splitlines()
    assert [line[8:] for line in lines] == [" fast: ready: after 1.5 s, on port 8000", " hello: other=1"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", lines[0][:8])


def test_who_asks_is_told_each_event_while_he_does() -> None:
    told: list[Told] = []
    configure("json", "warning", None)
    with telling(told.append, "warning"):
        structlog.get_logger().info("too little")
        structlog.get_logger().warning("worker failed", worker="a\x1b", state="failed", reason="exit")
        logging.getLogger("asyncio").error("slow")
    structlog.get_logger().warning("too late")
    assert [(one.who, one.text, one.tone) for one in told] == [
        ("a\\x1b", "failed: exit", "low"),
        ("", "slow", "bad"),
    ]


def test_level_and_configuring_again() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure(level="WARNING", stream=second)
    structlog.get_logger().info("no")
    structlog.get_logger().warning("yes")
    assert [event["event"] for event in events(second)] == ["yes"]
    assert first.getvalue() == ""
    with pytest.raises(ValueError, match="loud"):
        configure(level="loud")


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_prompts_and_credentials_are_redacted_at_any_depth(fmt: Format) -> None:
    out = io.StringIO()
    configure(fmt, stream=out)
    deep: object = CANARY
    for _ in range(20):
        deep = {"more": [deep]}
    structlog.get_logger().warning(
        "request",
        Authorization=f"Bearer {CANARY}",
        api_key=CANARY,
        body=CANARY.encode(),
        prompt=CANARY,
        request={
            "X-Api-Key": CANARY,
            "messages": [{"content": CANARY}],
            "n": [{"prompt": CANARY}, ({"token": CANARY},)],
        },
        deep=deep,
        tokens=57,
    )
    assert CANARY not in out.getvalue()
    assert out.getvalue().count(REDACTED) == 9
    assert "57" in out.getvalue()


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_traceback_shows_no_local_variables(fmt: Format) -> None:
    out = io.StringIO()
    configure(fmt, stream=out)

    def fail(prompt: str) -> None:
        raise RuntimeError("no such model")

    try:
        fail(CANARY)
    except RuntimeError as error:
        kept = error
    structlog.get_logger().error("ours", exc_info=(type(kept), kept, kept.__traceback__))
    logging.getLogger("aiohttp.server").error("theirs", exc_info=kept)
    assert out.getvalue().count("RuntimeError: no such model") == 2
    assert out.getvalue().count("Traceback") == 2
    assert CANARY not in out.getvalue()


def test_a_client_cannot_drive_the_terminal() -> None:
    out = io.StringIO()
    configure("console", stream=out)
    structlog.get_logger().warning("no such model", model="\x1b[2Jgpt\nfake line")
    try:
        raise RuntimeError("\x1b[2J")
    except RuntimeError:
        logging.getLogger().exception("\x1b]0;title\x07\nfake line")
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "x1b[2Jgpt" in out.getvalue()
    assert not any(line.startswith("fake line") for line in out.getvalue().splitlines())


def test_a_full_disk_behind_the_log_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    configure(stream=Full())
    structlog.get_logger().info("hello")
    assert capfd.readouterr().err == ""


def test_a_log_in_a_file_rotates_between_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "draftd.log"
    with RotatedStream(path, max_bytes=1000, backups=2) as stream:
        configure(stream=stream)
        for number in range(30):
            structlog.get_logger("daemon").info("it is ½ past", number=number, why="\ud800")
    files = [path.with_name("draftd.log.2"), path.with_name("draftd.log.1"), path]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 1000 for file in files)
    numbers = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 30))


def test_a_mistake_in_a_log_call_is_still_told(capfd: pytest.CaptureFixture[str]) -> None:
    configure(stream=(out := io.StringIO()))
    (ours,) = (one for one in logging.getLogger().handlers if getattr(one, "stream", None) is out)
    ours.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",), "levelname": "INFO"}))
    assert "Logging error" in capfd.readouterr().err
