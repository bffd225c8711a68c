"""Takes a request that several machines could answer to one of them, and to the next one if it is refused there.

Theory of operation. `fleet` says which machine is the best now. A request is sent again only as long as no byte of
an answer has come and it is known that the request was not begun (`peer_http` says when that is). Each machine is
tried once. This machine is one of them, if it has the model: then the request goes the way it would without peers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from draftd.errors import DraftdError, WorkerError
from draftd.peers.bodies import UnreadableError
from draftd.peers.fleet import Fleet
from draftd.peers.load_report import LoadedModel
from draftd.peers.machines import Machine, Peer
from draftd.peers.measures import Figures
from draftd.peers.routing import HERE
from draftd.peers.watch import Sessions
from draftd.telemetry.request_record import RequestRecord
from draftd.web import worker_http
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.call import Call, Connection, Take
from draftd.web.peer_http import ElsewhereError, not_begun, post
from draftd.web.worker_errors import stopping
from draftd.web.worker_http import BrokenOffError, NotSentError
from draftd.workers.usage import Lease

_POSITION = "x-draftd-queue-position"


class PeerRelay:
    """`here` says how busy this machine is with a model, None if it does not serve it now; `relay_here` takes a
    request to its worker. `note` tells the journal that more is known of one.
    """

    def __init__(
        self,
        fleet: Fleet,
        sessions: Mapping[str, Sessions],
        here: Callable[[str], LoadedModel | None],
        relay_here: Callable[[Call, Take], Awaitable[bytes]],
        note: Callable[[RequestRecord], None],
    ) -> None:
        self._fleet = fleet
        self._sessions = sessions
        self._here = here
        self._relay_here = relay_here
        self._note = note
        self._open: set[asyncio.Timeout] = set()
        self._ending = False

    def cut_off(self) -> None:
        """End the requests that are at peers, and send no more there: the daemon stops."""
        self._ending = True
        for timeout in self._open:
            timeout.reschedule(0.0)  # long past

    async def relay(self, call: Call, take: Take) -> bytes:
        """Take the request to a machine, and pass the answer on. Returns what is left to send of it."""
        began = _Begun(take, time.monotonic())
        tried: set[str] = set()
        refusals: list[DraftdError] = []
        while (machine := await self._next(call, tried)) is not None:
            if self._ending and machine.name != HERE:
                raise stopping()
            tried.add(machine.name)
            try:
                return await self._at(machine, call, began)
            except ElsewhereError as error:
                refusals.append(error.error)
            except WorkerError as error:
                not_sent = isinstance(error, NotSentError) or not_begun(error)
                if self._ending or began.begun or machine.name != HERE or not not_sent:
                    raise
                refusals.append(error)
        raise self._nobody(call.name, refusals)

    async def _next(self, call: Call, tried: set[str]) -> Machine | None:
        """The machine to try; None if there is no other. A request waits for one that is about to be asked again,
        if it has tried none.
        """
        found = self._choice(call, tried)
        if found is None and not tried and await self._fleet.until_back(call.name):
            found = self._choice(call, tried)
        return found

    def _choice(self, call: Call, tried: set[str]) -> Machine | None:
        assert call.away is not None, "only such requests are taken here"
        # What was made for peers is not for a worker here, even if there is one of that name by now.
        here = None if call.away.only else self._here(call.name)
        found = self._fleet.choose(call.name, call.away.prompt, here, tried)
        if found is None and here is None and not call.away.only and HERE not in tried:
            return self._fleet.here  # it cannot serve now, and knows best why and for how long
        return found

    async def _at(self, machine: Machine, call: Call, began: _Begun) -> bytes:
        if not isinstance(machine, Peer):
            machine.given += 1
            with self._learning(machine, call, self._here(call.name), began.came):
                return await self._relay_here(call, began.take)
        outcome = "left"
        load = machine.load(call.name, time.monotonic())
        try:
            with machine.serves(call.name), self._learning(machine, call, load, began.came):
                rest = await self._attempt(machine, call, began)
            outcome = "answered"
            return rest
        except ElsewhereError:
            outcome = "refused"
            raise
        except UnreadableError:  # we left it, in the middle of the body
            raise
        except DraftdError:
            outcome = "failed"
            raise
        finally:
            machine.outcomes[outcome] += 1

    async def _attempt(self, peer: Peer, call: Call, began: _Begun) -> bytes:
        assert call.away is not None, "only such requests are taken here"
        call.headers["x-draftd-worker"] = peer.name
        call.record.peer, call.record.phase = peer.name, "answering"
        self._note(call.record)
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._open.add(timeout)
                connection = await post(
                    peer, self._sessions[peer.name], call.name, call.path, call.away.payload, call.kind
                )
                call.headers[_POSITION] = _count(connection.headers.get(_POSITION, ""))
                try:
                    return await began.take(connection, _NO_LEASE)
                finally:
                    connection.close()
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise stopping() from error
        except BrokenOffError as error:
            if error.when == worker_http.IN_THE_MIDDLE:  # before it, that was noted where it happened
                peer.failed("broke off")
            text = str(error).replace("the worker", f"the peer {peer.name}", 1)
            raise WorkerError(text, status=502, code="peer_lost") from error
        except BrokenAnswerError as error:
            text = f"the answer of the peer {peer.name} was broken: {error}"
            raise WorkerError(text, status=502, code="bad_answer") from error
        finally:
            self._open.discard(timeout)

    @contextmanager
    def _learning(
        self, machine: Machine, call: Call, load: LoadedModel | None, came: float
    ) -> Iterator[None]:
        """Let the machine learn from the answer, if one comes. `came`: when the request did (monotonic seconds)."""
        assert call.away is not None, "only such requests are taken here"
        sent = time.monotonic()
        yield
        record = call.record
        if load is None or record.tokens is None:
            return
        first = record.first_token  # seconds since the request came
        figures = Figures(
            prompt_tokens=record.prompt_tokens or 0,
            cached_tokens=record.cached_tokens or 0,
            tokens=record.tokens,
            tokens_per_second=record.tokens_per_second,
            first_token=None if first is None else max(1e-3, first - (sent - came)),
            seconds=time.monotonic() - sent,
            before=load.open,
            slots=load.slots,
        )
        tells = record.cached_tokens is not None
        machine.learn(call.name, call.away.prompt, figures, tells_cached=tells)

    def _nobody(self, model: str, refusals: list[DraftdError]) -> DraftdError:
        """The error for a request that no machine takes: the one from the machine that can be asked again first."""
        if refusals:
            return min(refusals, key=lambda error: getattr(error, "retry_after", None) or 1e9)
        why, seconds = self._fleet.why_nobody(model)
        text = f"no machine that has '{model}' takes requests now: {why}"
        return WorkerError(text, code="no_peer", retry_after=seconds)


class _Begun:
    """Takes an answer, and knows whether one has come. `came`: when the request did (monotonic seconds)."""

    def __init__(self, take: Take, came: float) -> None:
        self._take = take
        self.came = came
        self.begun = False

    async def take(self, connection: Connection, lease: Lease) -> bytes:
        self.begun = True
        return await self._take(connection, lease)


def _count(told: str) -> str:
    return told if told.isascii() and told.isdecimal() else "0"


def _nothing() -> None: ...


_NO_LEASE = Lease(0, {}, 0, _nothing)  # nobody watches over a peer's progress but the peer
