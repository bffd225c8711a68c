"""BodyReader: large bodies are read in a child, which ends with its client, its work, or the daemon."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from draftd.errors import RequestError, WorkerError
from draftd.profiles import ProfileSet
from draftd.web import body_reader
from draftd.web.body_reader import LARGE, MAX_VALUES, BodyReader, check_size, serve
from draftd.web.passed_on import Given, Passed
from draftd.web.router import Refused, Routed, RoutingTable, read, route
from tests.harness import LIMIT, chat, fake, serving, until_gone
from tests.web.given import profile, refused
from tests.web.raw_http import Wire

TABLE = RoutingTable(ProfileSet({"small": profile()}), "small")
BIG = json.dumps(chat("x" * LARGE)).encode()
SLOW = b'{"x": [' + b"[]," * 10_000_000 + b"1]}"  # takes a child seconds to parse, and 100 ms to refuse


@pytest.fixture
async def reader() -> AsyncIterator[BodyReader]:
    made = BodyReader()
    yield made
    await made.close()


def child_of(reader: BodyReader) -> int:
    assert reader._process is not None
    return reader._process.pid


async def stopped_while_it_reads(reader: BodyReader) -> tuple[int, asyncio.Task[Refused | Routed | Passed]]:
    """The child, stopped by a signal, and the reading that waits for it."""
    await reader.read(BIG, "chat.completions", TABLE)
    child = child_of(reader)
    os.kill(child, signal.SIGSTOP)
    reading = asyncio.create_task(reader.read(BIG, "chat.completions", TABLE))
    await asyncio.sleep(0.1)
    return child, reading


async def test_a_child_makes_of_a_body_what_is_made_on_the_spot(reader: BodyReader) -> None:
    read = [await reader.read(BIG, "chat.completions", TABLE) for _ in range(2)]
    assert read == [route(BIG, "chat.completions", TABLE)] * 2
    assert child_of(reader) != os.getpid()


@pytest.mark.fault(74)
async def test_a_body_that_is_passed_on_is_read_there_too(reader: BodyReader) -> None:
    """Its values are counted but not created; the model's name may have to be found in a form."""
    table = RoutingTable(ProfileSet({"other": profile("other", command=["server", "{port}"])}), "other")
    given = Given("/v1/embeddings", "a=b", "application/json")
    raw = b'{"model": "other", "input": [' + b"[]," * 300_000 + b"1]}"
    found = await reader.read(raw, given, table)
    assert isinstance(found, Passed)
    assert found == read(raw, given, table)
    assert isinstance(found.payload, bytes)
    assert (found.path, found.payload[:20]) == ("/v1/embeddings?a=b", b'{"model":"org/model"')
    assert child_of(reader) != os.getpid()


async def test_only_large_bodies_need_the_child(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        assert (await served.ask("a")).status == 200
        assert served.daemon.bodies._process is None
        assert (await served.ask("a", "x" * LARGE)).status == 200
        assert served.daemon.bodies._process is not None


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("raw", "name", "status", "code", "param"),
    [
        (BIG.replace(b"user", b"\xff"), None, 400, None, None),
        (BIG.replace(b'"messages"', b'"model": "nobody", "messages"'), None, 404, "model_not_found", "model"),
        (BIG.replace(b'"messages"', b'"n": 2, "messages"'), "small", 400, "unsupported_value", "n"),
        (SLOW, None, 400, None, None),
    ],
)
async def test_a_refusal_comes_back_whole(
    reader: BodyReader, raw: bytes, name: str | None, status: int, code: str | None, param: str | None
) -> None:
    found = await reader.read(raw, "chat.completions", TABLE)
    assert isinstance(found, Refused)
    error = found.error
    assert (found.profile, error.status, error.code, error.param) == (name, status, code, param)
    if raw is not SLOW:
        there = route(raw, "chat.completions", TABLE)
        assert isinstance(there, Refused)
        assert str(error) == str(there.error)


async def test_large_bodies_that_come_together_are_read_one_after_the_other(reader: BodyReader) -> None:
    bodies = [json.dumps(chat(str(number) * LARGE)).encode() for number in range(5)]
    found = await asyncio.gather(*(reader.read(body, "chat.completions", TABLE) for body in bodies))
    assert found == [route(body, "chat.completions", TABLE) for body in bodies]


async def test_the_child_ends_when_nobody_has_needed_it_for_a_while(
    reader: BodyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_reader, "IDLE", 0.1)
    await reader.read(BIG, "chat.completions", TABLE)
    first = child_of(reader)
    await until_gone(first)
    assert isinstance(await reader.read(BIG, "chat.completions", TABLE), Routed)
    assert child_of(reader) != first


async def test_the_child_ends_with_the_client_that_it_works_for(reader: BodyReader) -> None:
    child, reading = await stopped_while_it_reads(reader)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until_gone(child)
    assert isinstance(await reader.read(BIG, "chat.completions", TABLE), Routed)


async def test_a_body_that_takes_too_long_is_refused(
    reader: BodyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.read(BIG, "chat.completions", TABLE)
    os.kill(child_of(reader), signal.SIGSTOP)
    monkeypatch.setattr(body_reader, "MAX_SECONDS", 0.1)
    with pytest.raises(RequestError, match=r"within 0\.1 s"):
        await reader.read(BIG, "chat.completions", TABLE)


async def test_a_child_that_dies_costs_one_request_a_while(reader: BodyReader) -> None:
    child, reading = await stopped_while_it_reads(reader)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(WorkerError) as caught:
        await reading
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    assert isinstance(await reader.read(BIG, "chat.completions", TABLE), Routed)


async def test_a_child_that_cannot_be_started_costs_one_request_a_while(
    reader: BodyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)
    with pytest.raises(WorkerError):
        await reader.read(BIG, "chat.completions", TABLE)


def test_a_fault_in_the_child_is_told_and_the_next_body_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(raw: bytes, *_: object) -> Refused:
        if raw == b"bad":
            raise ZeroDivisionError
        return Refused(None, RequestError(400, "well", kind="k", code="c", param="p"))

    monkeypatch.setattr(body_reader, "read", faulty)
    what = pickle.dumps(("chat.completions", TABLE))
    parts = [what, b"bad", what, b"good"]
    answers = io.BytesIO()
    serve(io.BytesIO(b"".join(len(part).to_bytes(8) + part for part in parts)), answers)
    answers.seek(0)
    first, second = (pickle.loads(answers.read(int.from_bytes(answers.read(8)))) for _ in range(2))
    assert "ZeroDivisionError" in first
    assert str(second.error) == "well"
    assert (second.error.kind, second.error.code, second.error.param) == ("k", "c", "p")


async def test_a_fault_in_the_child_is_a_fault_of_ours(
    reader: BodyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> str:
        return "Traceback: ZeroDivisionError"

    monkeypatch.setattr(reader, "_in_child", broken)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        await reader.read(BIG, "chat.completions", TABLE)


def test_the_child_has_no_key_and_ends_with_the_daemon(tmp_path: Path) -> None:
    """The daemon is killed, and has no time to end it."""
    code = (
        "import asyncio; from draftd.profiles import ProfileSet; from draftd.web.body_reader import *\n"
        "async def main():\n"
        "    reader = BodyReader()\n"
        "    await reader.read(b' ' * 2**20, 'completions', RoutingTable(ProfileSet({}), ''))\n"
        "    print(reader._process.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    env = os.environ | {"DRAFTD_API_KEY": "canary"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as daemon:
        assert daemon.stdout is not None
        child = psutil.Process(int(daemon.stdout.readline()))
        assert "DRAFTD_API_KEY" not in child.environ()
        daemon.kill()
        child.wait(LIMIT)


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""', b'"a"', b'[{"a":[]}]'])
def test_a_body_of_too_many_values_is_refused(value: bytes) -> None:
    with refused(400, says=f"more than {MAX_VALUES} values"):
        check_size(b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]")


def test_what_stands_in_a_text_is_no_value() -> None:
    for text in (",[{" * MAX_VALUES, '\\",' * MAX_VALUES, "\n,é😀" * MAX_VALUES):
        raw = json.dumps(chat(text), ensure_ascii=False).encode()
        check_size(raw)
        check_size(raw.replace(b"\\n", b"\n"))


def test_a_conversation_of_ten_thousand_messages_has_not_too_many_values() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}] * 10_000}
    check_size(json.dumps(body).encode())


@pytest.mark.parametrize("raw", [b'{"a', b'{"a": "b\\"}', b'["a", "]'])
def test_a_text_that_does_not_end_is_no_json(raw: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw)
    with pytest.raises(RequestError, match="not JSON"):
        check_size(raw)


@pytest.mark.thorough
@pytest.mark.fault(74)
@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems' allocators return large blocks by themselves"
)
def test_large_blocks_that_are_freed_go_back_to_the_system_whatever_lies_between_them() -> None:
    code = (
        "import psutil; from draftd.web.body_reader import return_large_blocks as first; first()\n"
        "def rss(): return psutil.Process().memory_info().rss\n"
        "def between(): return [(b'a' * (20 * 2**20), b'b' * 2**17)[1] for _ in range(6)]\n"
        "before = rss(); kept = [between() for _ in range(4)]; print(rss() - before)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=LIMIT)
    assert int(told.stdout) < 10 * 2**20


@pytest.mark.fault(74)
@pytest.mark.thorough  # the other tests of this file show each part of it
async def test_large_bodies_hold_nobody_up_and_leave_no_memory_behind(
    wire: Wire, tmp_path: Path, measured: Callable[[float], None]
) -> None:
    text = json.dumps(chat("x" * 31 * 2**20, model="a")).encode()
    async with serving(tmp_path, {"a": fake()}) as served:
        assert (await wire.ask(served, wire.post(text))).status == 200
        before = psutil.Process().memory_info().rss
        watching = asyncio.create_task(_longest_stall())
        for raw, status in ((text, 200), (SLOW, 400), (SLOW[:-9], 400)):
            assert (await wire.ask(served, wire.post(raw), limit=60)).status == status
        six = await asyncio.gather(*(wire.ask(served, wire.post(text), limit=60) for _ in range(6)))
        assert [answer.status for answer in six] == [200] * 6
        watching.cancel()
        stall = await watching
        measured(stall)
        assert stall < 1.0  # it was 4 to 15 s; on an idle machine it is a hundredth of that
        assert (served.state("a"), served.row("a")["restarts"]) == ("ready", 0)
        assert psutil.Process().memory_info().rss - before < 64 * 2**20  # it was 30 MB and more each


@pytest.mark.fault(74)
@pytest.mark.thorough
async def test_large_bodies_for_other_servers_hold_nobody_up(
    wire: Wire, tmp_path: Path, measured: Callable[[float], None]
) -> None:
    keys = b'{"model": "a", ' + b",".join(b'"%d": 1' % number for number in range(200_000)) + b"}"
    async with serving(tmp_path, {"a": fake()}) as served:
        watching = asyncio.create_task(_longest_stall())
        for _ in range(3):
            answer = await wire.ask(served, wire.post(keys, path="/v1/embeddings"), limit=60)
        assert answer.headers["x-draftd-profile"] == "a"  # whatever that server makes of it
        assert served.daemon.bodies._process is not None
        watching.cancel()
        measured(await watching)


async def _longest_stall() -> float:
    """The longest time, in seconds, that the loop did not turn, until cancelled."""
    longest, last = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
    except asyncio.CancelledError:
        return longest
