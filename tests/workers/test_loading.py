"""The monitor of a child that loads: when it is ready, and whether it makes progress. The test is the child."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import psutil
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from draftd.profile_tables import HealthPolicy
from draftd.workers import families, loading
from draftd.workers.command import one_token_request
from draftd.workers.events import BecameReady, HealthOk, LoadStuck, Unfit
from draftd.workers.loading import Signs, _generates, _is_loopback, _signs, _talks, owns_port
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched
from tests.workers.watching import FOREIGN, LIMIT, PROFILE, TOKEN, Bench

# --- ready ----------------------------------------------------------------------------------------------------


async def test_a_child_is_ready_when_it_has_generated_a_token_and_not_before(bench: Bench) -> None:
    bench.server.answers = [
        web.json_response({"error": "loading"}, status=503),
        {"choices": []},
        {},
        web.json_response(["choices"]),
        web.Response(text="not JSON"),
        web.Response(body=b"\xff\xfe", content_type="application/json"),
        web.json_response(TOKEN, status=500),
        TOKEN,
    ]
    async with bench.watching():
        assert await bench.next() == BecameReady()
        assert bench.server.bodies == [one_token_request(PROFILE)] * 8
        assert await bench.next() == HealthOk()


@pytest.mark.fault(56)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"choices": null}',
        b'{"choices": 3}',
        b'"choices"',
        b"[1e999999]",
        b"",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_an_answer_of_any_kind_is_no_fault_of_ours(bench: Bench, body: bytes) -> None:
    bench.server.answers = [web.Response(body=body, content_type="application/json"), TOKEN]
    with capture_logs() as logs:
        async with bench.watching():
            assert await bench.next() == BecameReady()
    assert logs == []


async def test_an_answer_without_end_is_not_read_to_the_end(bench: Bench) -> None:
    bench.server.answers = []  # see post
    child = Watched(bench.port, lambda: PROFILE, bench.usage, drain=7.0)
    async with asyncio.timeout(LIMIT):
        assert not await _generates(child, bench.session, {})
    assert "HTTP 200: b'[[[[" in child.answer


async def test_a_long_answer_is_read_to_its_end(bench: Bench) -> None:
    bench.server.answers = [{"padding": "x" * 900_000} | TOKEN]
    child = Watched(bench.port, lambda: PROFILE, bench.usage, drain=7.0)
    assert await _generates(child, bench.session, {})


async def test_a_child_that_has_not_answered_yet_is_said_to_listen(bench: Bench) -> None:
    bench.server.answers = []
    child = Watched(bench.port, lambda: PROFILE, bench.usage, drain=7.0)
    asking = asyncio.create_task(_generates(child, bench.session, {}))
    async with asyncio.timeout(LIMIT):
        while not bench.server.asked:
            assert child.status is None
            await asyncio.sleep(0)
    assert child.answer == "it listens, and has not answered the readiness check"
    await asking
    assert child.answer != "it listens, and has not answered the readiness check"


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    where = {"Location": "/v1/chat/completions"}
    bench.server.answers = [web.Response(status=307, headers=where), TOKEN]
    child = Watched(bench.port, lambda: PROFILE, bench.usage, drain=7.0)
    assert not await _generates(child, bench.session, {})
    assert (child.status, len(bench.server.bodies)) == (307, 1)


async def test_what_was_answered_is_kept_for_people(bench: Bench) -> None:
    child = Watched(bench.port, lambda: PROFILE, bench.usage, drain=7.0)
    assert child.answer == "nothing listens on its port"
    bench.server.answers = [web.Response(status=503, text="loading \x1b[2J" + "x" * 1000)]
    assert not await _generates(child, bench.session, {})
    assert child.answer.startswith("its answer to the readiness check was HTTP 503: b'loading \\x1b[2Jxxx")
    assert len(child.answer) < 300
    gone = Watched(1, lambda: PROFILE, bench.usage, drain=7.0)
    assert not await _generates(gone, bench.session, {})
    assert gone.answer == "its readiness check failed: ClientConnectorError"


async def test_a_fault_of_ours_is_logged_and_the_child_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(loading, "owns_port", fails)
    with capture_logs() as logs:
        async with bench.watching(ends=True):
            assert await bench.next() == Unfit("fault")
    assert [entry["event"] for entry in logs] == ["a fault in draftd itself; it goes on"]


# --- does it get on -------------------------------------------------------------------------------------------

QUIET = Signs(memory=100 * 2**20, work=10.0, output=50, status=None)


@pytest.mark.parametrize(
    ("change", "progress"),
    [
        ({}, False),
        ({"memory": QUIET.memory + 2**20 - 1}, False),
        ({"memory": QUIET.memory + 2**20}, True),
        ({"memory": QUIET.memory - 2**20}, True),
        ({"work": 10.4}, False),
        ({"work": 10.5}, True),
        ({"work": 9.0}, True),  # one of its processes has ended
        ({"output": 51}, True),
        ({"output": 51, "status": 503}, True),  # its first answer
    ],
)
def test_a_load_gets_on_if_it_works_grows_speaks_or_fetches(change: dict[str, Any], progress: bool) -> None:
    assert replace(QUIET, **change).show_progress(QUIET, 10.0) is progress


def test_the_output_of_a_server_that_answers_is_its_log_of_our_requests() -> None:
    answering = replace(QUIET, status=503)
    assert not replace(answering, output=99).show_progress(answering, 10.0)
    assert replace(answering, status=500).show_progress(answering, 10.0)


async def test_the_signs_of_a_process_are_its_own_and_those_of_its_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "x = b'x' * 30_000_000; [i for i in range(3_000_000)]; print(1, flush=True); input()"
    with _python(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child = Watched(1, lambda: PROFILE, Usage(), drain=0.0, pid=process.pid, output=7, status=503)
        signs = _signs(child)
        assert signs is not None
        assert signs.memory > 30_000_000
        assert 0.05 < signs.work < 10
        assert (signs.output, signs.status) == (7, 503)
        monkeypatch.setattr(families, "_families", families.Families())  # what was seen before is of no use
        ours = _signs(Watched(1, lambda: FOREIGN, Usage(), drain=0.0, pid=os.getpid()))
        assert ours is not None
        assert ours.memory > signs.memory + 30_000_000
        process.communicate()
    assert _signs(child) is None


@pytest.mark.parametrize(
    ("status", "address", "talks"),
    [
        (psutil.CONN_ESTABLISHED, "192.0.2.7", True),
        (psutil.CONN_ESTABLISHED, "127.0.0.1", False),
        (psutil.CONN_CLOSE_WAIT, "192.0.2.7", False),
    ],
)
def test_a_child_that_has_a_connection_to_another_machine_talks(
    status: str, address: str, talks: bool
) -> None:
    process = Mock(net_connections=lambda kind: [Mock(status=status, raddr=Mock(ip=address))])
    with patch.object(loading, "members", return_value=[process]):
        assert _talks(1, family=False) is talks


def test_a_child_whose_connections_cannot_be_seen_is_given_the_benefit_of_the_doubt() -> None:
    with patch.object(loading, "members", side_effect=psutil.AccessDenied()):
        assert _talks(1, family=False)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.9", False),
        ("fe80::1%en0", False),
    ],
)
def test_another_machine_is_one_that_is_not_this_one(address: str, loopback: bool) -> None:
    assert _is_loopback(address) is loopback


@pytest.mark.fault(57)
async def test_a_load_without_progress_is_told_gives_way_and_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server.answers = [web.json_response({"error": "loading"}, status=503)]
    monkeypatch.setattr(loading, "_signs", lambda child: replace(QUIET, status=child.status))
    profile = PROFILE.model_copy(update={"health": HealthPolicy(load_stall_timeout=0.4)})
    began = time.monotonic()
    with capture_logs() as logs:
        async with bench.watching(profile, ends=True):
            assert await bench.next() == LoadStuck()
            assert time.monotonic() - began > 0.1
            assert await bench.next() == Unfit("no_progress")
            assert time.monotonic() - began > 0.4
    (told,) = logs
    assert (told["event"], told["worker"], told["log_level"]) == ("a load makes no progress", "a", "warning")
    assert told["answer"].startswith("its answer to the readiness check was HTTP 503")


@pytest.mark.fault(57)
async def test_a_load_that_only_talks_to_another_machine_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server.answers = [web.json_response({"error": "loading"}, status=503)]
    looks = itertools.count(1)
    monkeypatch.setattr(loading, "_signs", lambda child: replace(QUIET, status=child.status))
    monkeypatch.setattr(loading, "_talks", lambda pid, family: next(looks) < 4)
    profile = PROFILE.model_copy(update={"health": HealthPolicy(load_stall_timeout=0.2)})
    async with bench.watching(profile, ends=True):
        assert await bench.next() == LoadStuck()
        assert next(looks) > 4
        assert await bench.next() == Unfit("no_progress")


@pytest.mark.fault(57)
async def test_each_verdict_comes_right_after_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where looks and verdicts are not due in the same step."""
    bench.server.answers = [web.json_response({"error": "loading"}, status=503)]
    did: list[str] = []

    def signs(child: Watched) -> Signs:
        did.append("step")
        return replace(QUIET, status=child.status)

    def talks(pid: int, *, family: bool) -> bool:
        did.append("look")
        return False

    monkeypatch.setattr(loading, "_signs", signs)
    monkeypatch.setattr(loading, "_talks", talks)
    monkeypatch.setattr(loading, "LOOK", 0.03)
    profile = PROFILE.model_copy(update={"health": HealthPolicy(load_stall_timeout=0.5)})
    async with bench.watching(profile, ends=True):
        for verdict in (LoadStuck(), Unfit("no_progress")):
            assert await bench.next() == verdict
            assert did[-1] == "look"


@pytest.mark.fault(57)
async def test_a_load_is_not_judged_by_the_time_in_which_the_daemon_was_held_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server.answers = [web.json_response({"error": "loading"}, status=503)]
    monkeypatch.setattr(loading, "_signs", lambda child: replace(QUIET, status=child.status))
    profile = PROFILE.model_copy(update={"health": HealthPolicy(load_stall_timeout=0.4)})
    async with bench.watching(profile, ends=True):
        await asyncio.sleep(0.02)
        time.sleep(0.6)  # noqa: ASYNC251 - the loop is held up
        free = time.monotonic()
        assert await bench.next() == LoadStuck()
        assert await bench.next() == Unfit("no_progress")
        assert time.monotonic() - free > 0.2


async def test_a_load_that_cannot_be_seen_or_gets_on_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.server.answers = [{}]
    profile = PROFILE.model_copy(update={"health": HealthPolicy(load_stall_timeout=0.1)})
    moving = itertools.count()
    for signs in (lambda child: None, lambda child: replace(QUIET, work=float(next(moving)))):
        monkeypatch.setattr(loading, "_signs", signs)
        async with bench.watching(profile):
            await asyncio.sleep(0.4)
    assert bench.events.empty()


async def test_a_child_that_does_not_get_ready_is_asked_less_and_less_often(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        loading, "owns_port", lambda *_, **__: True
    )  # a look takes long where connections are many
    bench.server.answers = [*[{}] * 7, TOKEN]
    async with bench.watching():
        assert await bench.next() == BecameReady()
    gaps = [later - earlier for earlier, later in pairwise(bench.server.asked)]
    assert gaps[-1] > 0.5
    assert gaps[0] < 0.3


@pytest.mark.fault(56)
async def test_looks_that_take_long_come_seldom_and_leave_the_loop_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def slow_look(*_: object, **__: object) -> bool:
        began.append(time.monotonic())
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return False

    monkeypatch.setattr(loading, "owns_port", slow_look)
    monkeypatch.setattr(loading, "_signs", lambda child: QUIET)
    async with bench.watching(FOREIGN):
        while len(began) < 3:  # noqa: ASYNC110 - a look at a time
            await asyncio.sleep(0.05)
    assert all(later - earlier > 0.39 for earlier, later in pairwise(began))


@pytest.mark.fault(186)
async def test_loads_of_others_servers_hold_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens yet, no connection is looked at, and one look at all processes serves all families."""
    monkeypatch.setattr(families, "_families", families.Families())
    monkeypatch.setattr(families, "MIN_AGE", LIMIT)
    monkeypatch.setattr(psutil.Process, "children", walk := Mock(return_value=[]))
    monkeypatch.setattr(psutil.Process, "net_connections", lambda process, kind: pytest.fail("looked at"))
    profile = FOREIGN.model_copy(update={"health": HealthPolicy(load_stall_timeout=LIMIT)})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        bench.port = closed.getsockname()[1]
    reached = Mock(side_effect=loading._is_listening)
    monkeypatch.setattr(loading, "_is_listening", reached)
    async with asyncio.timeout(LIMIT), AsyncExitStack() as loads:
        for _ in range(8):
            await loads.enter_async_context(bench.watching(profile))
        while reached.call_count < 24:  # noqa: ASYNC110 - three attempts each
            await asyncio.sleep(0.02)
    walk.assert_called_once()
    assert bench.events.empty()


@pytest.mark.fault(186)
async def test_who_listens_is_looked_at_beside_the_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def look(*_: object, **__: object) -> bool:
        threads.append(threading.get_ident())
        return True

    monkeypatch.setattr(loading, "owns_port", look)
    async with bench.watching(FOREIGN):
        assert await bench.next() == BecameReady()
    assert threads
    assert threading.get_ident() not in threads


async def test_a_look_that_meets_itself_leaves_the_port_to_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a connection does for which the system takes the very port that it goes to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def bound() -> socket.socket:
        made = make()
        made.bind(("127.0.0.1", port))
        return made

    make = socket.socket
    monkeypatch.setattr(loading, "socket", SimpleNamespace(**vars(socket) | {"socket": bound}))
    assert await loading._is_listening(port)
    socket.create_server(("127.0.0.1", port)).close()


async def test_a_stranger_on_the_port_is_asked_nothing(bench: Bench) -> None:
    with _python("input()") as stranger:
        bench.pid = stranger.pid
        for profile in (PROFILE, FOREIGN):
            async with bench.watching(profile):
                await asyncio.sleep(0.3)  # some ten looks
        stranger.communicate()
    assert (bench.server.bodies, bench.server.checks) == ([], [])
    assert bench.events.empty()


async def test_the_port_of_a_family_may_be_a_childs() -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with _python(code) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        assert owns_port(server.pid, port, family=False)
        assert owns_port(os.getpid(), port, family=True)
        assert not owns_port(os.getpid(), port, family=False)
        assert not owns_port(server.pid, port + 1, family=False)
        server.communicate()
    assert owns_port(server.pid, port, family=False) is False


async def test_a_connection_to_the_port_is_no_listener(bench: Bench) -> None:
    code = f"import socket; s = socket.create_connection(('127.0.0.1', {bench.port})); print(flush=True); input()"
    with _python(code) as client:
        assert client.stdout is not None
        await asyncio.to_thread(client.stdout.readline)
        assert not owns_port(client.pid, bench.port, family=False)
        client.communicate()


def _python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
