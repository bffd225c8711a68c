"""Reads the large bodies of requests, in a process of their own.

Theory of operation. Parsing JSON keeps the interpreter to itself, whatever the thread: a body of 31 MB held up
every client and every health check for five seconds. So a body above LARGE is parsed, routed and written anew in a
child, one body at a time; the loop only passes bytes. The child is started when it is first needed, and ends after
IDLE seconds with all the memory that it took. It ends at once if the client leaves or if a body takes too long; and
it ends with the daemon, which closes its stdin by ending.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import re
import struct
import sys
import traceback
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import BinaryIO

from draftd import clock
from draftd.errors import RequestError, WorkerError
from draftd.web.passed_on import Given, Passed
from draftd.web.router import Dialect, Refused, Routed, RoutingTable, read
from draftd.workers.command import environment

LARGE = 256 * 1024  # bytes; parsing that many takes 30 ms at worst
IDLE = 30.0  # seconds without a large body after which the child ends
MAX_SECONDS = 20.0  # for one body; what check_size lets through takes a tenth of that
# Values in a body: lists, objects, and what stands in them. A conversation of ten thousand messages has half as
# many; a body of the size that is allowed can hold millions, and each takes a hundred bytes of memory or more.
MAX_VALUES = 250_000
_SIZE = struct.Struct("!Q")
_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class BodyReader:
    """See the module's docstring. `close` it at the end."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        return_large_blocks()

    async def read(
        self, raw: bytes, asked: Dialect | Given, table: RoutingTable
    ) -> Routed | Passed | Refused:
        """What `router.read` returns. Raises RequestError, and WorkerError (503) if it cannot be read now."""
        async with self._turn:
            try:
                async with clock.limit(MAX_SECONDS):
                    outcome = await self._in_child(raw, asked, table)
            except TimeoutError as error:
                await self.close()
                raise RequestError(400, f"the body could not be read within {MAX_SECONDS:g} s") from error
            except (
                OSError,
                EOFError,
            ) as error:  # no file descriptor or no memory is left, for it or its work
                await self.close()
                raise WorkerError("a body this large cannot be read now", retry_after=1) from error
            except BaseException:
                await self.close()
                raise
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE, self._end_child)
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        return outcome

    async def _in_child(
        self, raw: bytes, asked: Dialect | Given, table: RoutingTable
    ) -> Routed | Passed | Refused | str:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await _start()
        to_child, from_child = self._process.stdin, self._process.stdout
        assert to_child is not None
        assert from_child is not None
        what = pickle.dumps((asked, table))
        to_child.writelines([_SIZE.pack(len(what)), what, _SIZE.pack(len(raw)), raw])
        await to_child.drain()
        size = _SIZE.unpack(await from_child.readexactly(_SIZE.size))[0]
        answer: Routed | Passed | Refused | str = pickle.loads(await from_child.readexactly(size))
        return answer

    def _end_child(self) -> None:
        """Let it end by itself; the next large body gets another one."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def close(self) -> None:
        """End the child at once, whatever it is doing."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _start() -> Process:
    """Raises OSError."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "draftd.web.body_reader",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=2**20,
        env=environment(os.environ, offline=True),
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the daemon
    )


def return_large_blocks() -> None:
    """Let freed blocks of a body's size go back to the system at once.

    glibc keeps blocks as large as any that was ever freed, up to 32 MB: ten bodies of 31 MB cost 200 MB for good.
    """
    with suppress(AttributeError, OSError):  # other systems' allocators return them anyway
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more, each with what `read` returns or with the traceback of a fault."""
    while what := _read_part(requests):
        asked, table = pickle.loads(what)
        raw = _read_part(requests)
        answer: Routed | Passed | Refused | str
        try:
            if not isinstance(asked, Given):  # the values of those are never built
                check_size(raw)
            answer = read(raw, asked, table)
        except RequestError as error:
            answer = Refused(None, error)
        except Exception:
            answer = traceback.format_exc()
        data = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        answers.write(_SIZE.pack(len(data)))
        answers.write(data)
        answers.flush()


def check_size(raw: bytes) -> None:
    """Refuse a body with more values than MAX_VALUES, without building them. Raises RequestError (400)."""
    rest = _STRING.sub(b"", raw)
    if b'"' in rest:
        raise RequestError(400, "the body is not JSON: a string in it does not end")
    if sum(rest.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise RequestError(400, f"the body holds more than {MAX_VALUES} values")


def _read_part(requests: BinaryIO) -> bytes:
    """The next part; empty at the end."""
    size = requests.read(_SIZE.size)
    return requests.read(_SIZE.unpack(size)[0]) if len(size) == _SIZE.size else b""


if __name__ == "__main__":
    return_large_blocks()
    with suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)
