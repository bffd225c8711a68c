"""The streaming reverse proxy: from a client's request for a completion to the end of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from draftd.errors import WorkerError
from draftd.peers import HOPS_HEADER
from draftd.peers.bodies import Body
from draftd.protocol import PROFILE_HEADER
from draftd.telemetry.journal import Journal
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.request_record import RequestRecord
from draftd.web import worker_http
from draftd.web.admission import Admission
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.beginnings import Beginnings
from draftd.web.body_reader import LARGE, BodyReader
from draftd.web.call import Call, Take
from draftd.web.client import ClientExchange, StreamReply
from draftd.web.completion_answer import CompletionAnswer
from draftd.web.passed_answer import PassedAnswer
from draftd.web.passed_on import Given, Passed
from draftd.web.peer_relay import PeerRelay
from draftd.web.request_body import Endpoint
from draftd.web.router import Dialect, Refused, Routed, Router, RoutingTable, pass_on, read
from draftd.web.translation import TRANSLATED
from draftd.web.worker_errors import stopping
from draftd.web.worker_http import BrokenOffError
from draftd.workers.command import HOST
from draftd.workers.supervisor import Supervisor
from draftd.workers.usage import Lease
from draftd.workers.worker import Worker

log = structlog.get_logger("proxy")

PATHS: dict[Endpoint, str] = {"chat.completions": "/v1/chat/completions", "completions": "/v1/completions"}
# Codes of the errors that a request may get when its worker ends, by itself or by us.
ENDED = frozenset({"worker_lost", "worker_stopped", "worker_unavailable", "bad_answer"})
MAX_NOTICE = 1.0  # seconds until the death of a worker is noticed
# Seconds that a request whose connection broke off waits to hear whether its worker has ended. It usually takes a
# few milliseconds; after this limit the error says no more than what is known.
MAX_DOUBT = 0.4


class Proxy:
    """Sends requests to workers. A stream gets a comment after `keepalive` seconds of silence. `peers` takes those
    that other machines could answer too.
    """

    def __init__(
        self,
        router: Router,
        supervisor: Supervisor,
        metrics: Metrics,
        bodies: BodyReader,
        keepalive: float,
        journal: Journal,
        beginnings: Beginnings,
    ) -> None:
        self.peers: PeerRelay | None = None
        self._journal = journal
        self._beginnings = beginnings
        self._router = router
        self._supervisor = supervisor
        self._metrics = metrics
        self._keepalive = keepalive
        self._bodies = bodies
        self._admissions: dict[Worker, Admission] = {}
        self._refusing = False
        self._ending = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.open_requests = 0

    def admission(self, name: str) -> Admission:
        """The queue of a profile's worker: one for all profiles that share it."""
        worker = self._supervisor.worker(name)
        if worker not in self._admissions:
            self._admissions[worker] = Admission(lambda: self._capacity(worker))
        return self._admissions[worker]

    def _capacity(self, worker: Worker) -> tuple[int, int]:
        profile = self._router.table.profiles.profiles.get(worker.name)
        return (profile.concurrency, profile.limits.queue) if profile else (1, 0)

    def refresh(self) -> None:
        """After a reload: let in as many as the limits allow now, and forget the queues of workers that end."""
        for admission in self._admissions.values():
            admission.refresh()
        kept = {self._supervisor.worker(name) for name in self._router.table.profiles.profiles}
        self._admissions = {worker: one for worker, one in self._admissions.items() if worker in kept}

    def refuse_new(self) -> None:
        """The daemon stops: what is open may finish, nothing new is taken."""
        self._refusing = True

    def cut_off(self) -> None:
        """The workers are being ended: clients that wait for one, or for the rest of an answer, are told why."""
        self._ending = True
        if self.peers is not None:
            self.peers.cut_off()

    async def until_idle(self) -> None:
        """Return when no request is open."""
        await self._idle.wait()

    async def handle(self, exchange: ClientExchange, dialect: Dialect | None) -> None:
        """Answer one request; without a dialect it is passed on as it is. Raises DraftdError, also when a part of a
        stream has been sent.
        """
        if self._refusing:
            raise stopping()
        self.open_requests += 1
        self._idle.clear()
        try:
            await self._handle(exchange, dialect)
        except WorkerError as error:
            if self._ending and error.code in ENDED:
                raise stopping() from error
            raise
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()

    async def _handle(self, exchange: ClientExchange, dialect: Dialect | None) -> None:
        routed = await self._route(exchange, dialect)
        if routed.profile is not None:
            exchange.profile = exchange.headers["x-draftd-profile"] = routed.profile
        if isinstance(routed, Refused):
            raise routed.error
        if isinstance(routed, Passed):
            try:
                await self._pass(exchange, routed)
            finally:
                _close(routed.payload)
            return
        if translated := TRANSLATED.get(dialect):
            exchange = translated(exchange)
        exchange.repeated = routed.repeated
        await self._complete(exchange, routed)

    async def _complete(self, exchange: ClientExchange, routed: Routed) -> None:
        name, forward, record = routed.profile, routed.forward, _record_of(exchange)
        path = PATHS[forward.endpoint]
        call = Call(
            name, exchange.headers, record, path, forward.payload, own=forward.headers, away=routed.away
        )
        relay = self._way(call)
        record.profile, record.streamed = name, forward.stream
        self._journal.note(record)
        if forward.beginning is not None:
            self._beginnings.note(name, forward.beginning, forward.headers)
        reply = StreamReply(exchange, self._keepalive) if forward.stream else None
        kept = self._journal.contents.holds(record.id)
        answer = CompletionAnswer(call, forward, reply, self._metrics, self._journal.note, is_kept=kept)
        try:
            if reply is None:
                await exchange.answer(200, await relay(call, answer.take))
                return
            async with reply.kept_alive():
                rest = await relay(call, answer.take)
            await reply.finish(rest)
        finally:
            if kept and answer.content:
                self._journal.contents.take_answer(record.id, answer.content)

    async def _pass(self, exchange: ClientExchange, passed: Passed) -> None:
        record = _record_of(exchange)
        call = Call(
            passed.profile, exchange.headers, record, passed.path, passed.payload, passed.content_type
        )
        call.away = passed.away
        record.profile = call.name
        self._journal.note(record)
        answer = PassedAnswer(exchange)
        await answer.finish(await self._way(call)(call, answer.take))

    def _way(self, call: Call) -> Callable[[Call, Take], Awaitable[bytes]]:
        """What takes the request to where it is answered: to a worker here, or to whichever machine is the best."""
        return self.relay if call.away is None or self.peers is None else self.peers.relay

    async def _route(self, exchange: ClientExchange, dialect: Dialect | None) -> Routed | Passed | Refused:
        table, head = self._router.table, exchange.head
        raw = await (exchange.body() if dialect else exchange.any_body())
        if table.peers and HOPS_HEADER in head.headers:
            table = self._router.alone
        asked = dialect or Given(
            head.path, head.target.partition("?")[2], head.headers.get("Content-Type", "")
        )
        if not isinstance(raw, bytes):
            assert isinstance(asked, Given), "only what is passed on may be kept in a file"
            return _passed_on(replace(asked, body=raw), table)
        self._journal.take_body(_record_of(exchange), raw)
        return read(raw, asked, table) if len(raw) <= LARGE else await self._bodies.read(raw, asked, table)

    async def relay(self, call: Call, take: Take) -> bytes:
        """Wait for a slot and the worker, send the request, pass the answer on. Returns what is left to send."""
        while True:
            worker = self._supervisor.worker(call.name)
            try:
                return await self._in_turn(worker, call, take)
            except WorkerError as error:
                if error.code != "worker_stopped" or self._supervisor.worker(call.name) is worker:
                    raise
                # A reload gave the profile to another worker while the request waited for this one.

    async def _in_turn(self, worker: Worker, call: Call, take: Take) -> bytes:
        admission = self.admission(call.name)
        # Of those that wait for the worker, who hold slots.
        before = self._supervisor.waiting_before(call.name)
        ahead = admission.depth + before if before else admission.ahead
        call.headers["x-draftd-queue-position"] = str(ahead)
        async with admission.slot() as waited:
            self._metrics.queue_wait(call.name, waited)
            call.record.waited = waited
            self._journal.note(call.record)
            try:
                return await self._attempt(worker, call, take)
            except worker_http.NotSentError:
                # The worker died a moment ago, and we asked before its own task had heard of it.
                await worker.until_changed(MAX_NOTICE)
                return await self._attempt(worker, call, take)

    async def _attempt(self, worker: Worker, call: Call, take: Take) -> bytes:
        async with worker.lease(call.name) as lease:
            call.headers["x-draftd-worker"] = f"{HOST}:{lease.port}"
            call.record.worker, call.record.phase = worker.name, "answering"
            self._journal.note(call.record)
            headers = {**self._headers(call), **lease.headers}
            try:
                connection = await worker_http.post(lease.port, call.path, call.payload, headers, call.kind)
                try:
                    return await take(connection, lease)
                finally:
                    connection.close()
            except BrokenOffError as error:
                lives = await _outlives(worker, lease, MAX_DOUBT)
                raise (error if lives else error.ended()) from error.__cause__
            except BrokenAnswerError as error:
                raise worker_http.broken(error) from error

    def _headers(self, call: Call) -> dict[str, str]:
        """What the engine has to know beside the body."""
        shared = {PROFILE_HEADER: call.name} if self._supervisor.is_shared(call.name) else {}
        return {**shared, **call.own}


def _record_of(exchange: ClientExchange) -> RequestRecord:
    assert exchange.record is not None, "the pipeline begins one for each request to a model"
    return exchange.record


def _passed_on(given: Given, table: RoutingTable) -> Passed | Refused:
    """The request for the server that a body in a file is for."""
    try:
        routed = pass_on(given, table)
    except WorkerError:  # our disk is at fault
        _close(given.body)
        raise
    if isinstance(routed, Refused):
        _close(given.body)
    return routed


def _close(body: Body) -> None:
    if not isinstance(body, bytes):
        body.close()


async def _outlives(worker: Worker, lease: Lease, limit: float) -> bool:
    """Whether the child still serves after `limit` seconds; if not, it returns as soon as that is known."""
    deadline = time.monotonic() + limit
    while worker.serves(lease.child) and (left := deadline - time.monotonic()) > 0:
        await worker.until_changed(left)
    return worker.serves(lease.child)
