"""Watches a child that loads: is it ready, and if not, does the load make progress?

A child is asked over its own port, after making sure that the port is its own: a stranger on it would answer just
as well, and would then be sent prompts. Its answers are read up to a limit and checked against a type, as it may be
anybody's server.

Signs of progress: the child uses the processor, its memory changes, it writes output, or it talks to another
machine, as it does when it fetches its model. Once it answers the readiness check its output is no longer a sign:
most servers log every request.

Whose a connection or a listener is can only be told by going through all connections of the machine, and there may
be thousands. So that is done in a thread, and seldom: who listens is looked at when somebody does, and whether a
child talks to another machine when no other sign has been seen for a while.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import psutil
import structlog

from draftd import clock
from draftd.workers import memory
from draftd.workers.command import HOST, one_token_request
from draftd.workers.events import BecameReady, Event, LoadStuck, Unfit
from draftd.workers.families import members
from draftd.workers.watched import Watched

log = structlog.get_logger("worker")

# Seconds between attempts to reach a child that loads. Our engine is tried often at first, so that the wait for the
# next attempt adds about 1 % to a start. Other servers take longer, and are tried only every POLL.
FIRST_POLL = 0.01
GROWTH = 1.02
POLL = 0.1
MAX_POLL = 2.0
MAX_ANSWER = 1024 * 1024  # bytes of an answer to the readiness check that are read
MAX_SHOWN = 200  # bytes of it that people see
LOOK = 1.0  # seconds between two looks at whether a load makes progress
MIN_PAUSE = 20  # times the processor's time that a look at who listens takes, until the next one
MAX_CONNECT = 0.5  # seconds; a connection within the machine is made at once, or its queue is full
MIN_GROWTH = 2**20  # bytes of memory
MIN_WORK = 0.05  # of one processor; a server that only answers our checks needs a tenth of that
GIVE_WAY = 0.25  # the share of the time allowed without progress after which other workers may load


async def loads(child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]) -> bool:
    """Return when the child is ready (True), or when its load has made no progress for too long."""
    async with asyncio.TaskGroup() as tasks:
        ready = tasks.create_task(until_ready(child, session))
        stuck = tasks.create_task(_until_stuck(child, post))
        await asyncio.wait({ready, stuck}, return_when=asyncio.FIRST_COMPLETED)
        is_ready = ready.done()
        ready.cancel()
        stuck.cancel()
    post(BecameReady() if is_ready else Unfit("no_progress"))
    return is_ready


async def _until_stuck(child: Watched, post: Callable[[Event], None]) -> None:
    """Time is counted in checks: while the daemon itself is held up, a sign of progress may lie there unseen."""
    last, since = None, time.monotonic()
    silent, looked, gave_way = 0.0, 0.0, False
    while True:
        allowed = child.profile().health.load_stall_timeout
        now, signs = time.monotonic(), _signs(child)
        gets_on = signs is None or last is None or signs.show_progress(last, now - since)
        decides = silent >= allowed or (silent >= allowed * GIVE_WAY and not gave_way)
        if not gets_on and (decides or silent - looked >= allowed * GIVE_WAY / 2):
            looked = silent
            gets_on = await asyncio.to_thread(_talks, child.pid, family=child.family)
        if gets_on:
            last, since, silent, looked = signs, now, 0.0, 0.0
        if why := child.silent_rank(allowed):
            child.answer = why
            return
        if silent >= allowed * GIVE_WAY and not gave_way:
            gave_way = True
            log.warning("a load makes no progress", worker=child.profile().name, answer=child.answer)
            post(LoadStuck())
        if silent >= allowed:
            return
        pause = min(LOOK, allowed * GIVE_WAY / 2)
        await asyncio.sleep(pause)
        silent += pause


@dataclass(frozen=True, slots=True)
class Signs:
    """What can be seen of a load at once: bytes of memory, seconds of work, bytes of output, and an answer."""

    memory: int
    work: float
    output: int
    status: int | None  # of the latest answer to the readiness check

    def show_progress(self, last: Signs, seconds: float) -> bool:
        """Whether something has happened since `last`, that many seconds ago."""
        return (
            abs(self.memory - last.memory) >= MIN_GROWTH
            or not 0 <= self.work - last.work < MIN_WORK * seconds  # less: one of its processes has ended
            or self.status != last.status
            or (self.output > last.output and self.status is None)
        )


def _signs(child: Watched) -> Signs | None:
    """None if they cannot be seen: the child has ended, or no file descriptor is left to look with."""
    try:
        family = members(child.pid, family=child.family)
        times = [member.cpu_times() for member in family]
        used = sum(memory.used_by(member) for member in family)
    except (psutil.Error, OSError):
        return None
    work = sum(one.user + one.system for one in times)
    return Signs(used, work, child.output, child.status)


def _talks(pid: int, *, family: bool) -> bool:
    """Whether the process, or with `family` a descendant, has a connection to another machine; also if that cannot
    be seen. Blocking.
    """
    try:
        found = [one for member in members(pid, family=family) for one in member.net_connections(kind="tcp")]
    except (psutil.Error, OSError):
        return True
    return any(one.status == psutil.CONN_ESTABLISHED and not _is_loopback(one.raddr.ip) for one in found)


def _is_loopback(address: str) -> bool:
    known = ipaddress.ip_address(address.partition("%")[0])
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return (mapped or known).is_loopback


async def until_ready(child: Watched, session: aiohttp.ClientSession) -> None:
    """Return once the child owns its port and has generated a token. Waits forever: others keep the limits."""
    request = one_token_request(child.profile())
    wait = POLL if child.family else FIRST_POLL
    while True:
        growth, longest, took = GROWTH, POLL, 0.0
        if await _is_listening(child.port):
            owns, took = await asyncio.to_thread(_timed_look, child)
            if owns:
                if await _generates(child, session, request):
                    return
                growth, longest = 2.0, MAX_POLL  # it answers, but not yet well: ask less and less often
        await asyncio.sleep(max(wait, MIN_PAUSE * took))
        wait = min(wait * growth, longest)


async def _is_listening(port: int) -> bool:
    """Whether anybody takes connections at the port, or would if there were not so many."""
    try:
        with socket.socket() as caller:
            caller.setblocking(False)
            # The system may give it this very port, so that it meets itself: the child has to be able to take it.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            async with clock.limit(MAX_CONNECT):
                await asyncio.get_running_loop().sock_connect(caller, (HOST, port))
    except TimeoutError:
        return True
    except OSError:
        return False
    return True


def _timed_look(child: Watched) -> tuple[bool, float]:
    """Whether the child owns its port, and the processor's time in seconds that it took to see that. Blocking."""
    began = time.thread_time()
    owns = owns_port(child.pid, child.port, family=child.family)
    return owns, time.thread_time() - began


def owns_port(pid: int, port: int, *, family: bool) -> bool:
    """Whether the process `pid`, or with `family` a descendant, listens on `port`. Blocking."""
    try:
        return any(_listens(member, port) for member in members(pid, family=family, fresh=True))
    except (psutil.Error, OSError):
        return False


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        found = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in found)


class _Answer(msgspec.Struct):
    """As much of an answer as the readiness check wants: at least one choice."""

    choices: list[msgspec.Raw] = []


async def _generates(child: Watched, session: aiohttp.ClientSession, request: dict[str, Any]) -> bool:
    url = f"http://{HOST}:{child.port}/v1/chat/completions"
    if child.status is None:
        child.answer = "it listens, and has not answered the readiness check"
    try:
        async with session.post(url, json=request, headers=child.headers, allow_redirects=False) as response:
            body = await _beginning(response)
            child.status = response.status
            child.answer = (
                f"its answer to the readiness check was HTTP {response.status}: {body[:MAX_SHOWN]!r}"
            )
            return response.status == 200 and bool(msgspec.json.decode(body, type=_Answer).choices)
    except (aiohttp.ClientError, OSError) as error:
        child.answer = f"its readiness check failed: {type(error).__name__}"
    except (msgspec.MsgspecError, RecursionError, ValueError):
        pass  # an answer, but not one that we know
    return False


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The body, or its first MAX_ANSWER bytes and a little more."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            break
    return bytes(body)
