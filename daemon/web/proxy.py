"""The streaming reverse proxy: one handler from a client's request to the end of its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import structlog
from aiohttp import web

from daemon.errors import DraftdError, RequestError, WorkerError
from daemon.profiles import Profile
from daemon.telemetry.metrics import Metrics
from daemon.web import upstream
from daemon.web.admission import Admission
from daemon.web.events import DONE, Answer, BrokenAnswerError, is_usage_only, to_event
from daemon.web.forwarding import Endpoint, Forward, parse_body, prepare
from daemon.web.reply import PROFILE, REQUEST_ID, STATUS, StreamReply
from daemon.web.router import Router
from daemon.workers.command import HOST, upstream_model
from daemon.workers.supervisor import Supervisor
from daemon.workers.worker import Worker

log = structlog.get_logger("proxy")

PATHS: dict[Endpoint, str] = {"chat.completions": "/v1/chat/completions", "completions": "/v1/completions"}
NOTICE = 1.0  # seconds that the death of a worker may take to be noticed


@dataclass(slots=True)
class Timing:
    """When an answer's tokens came, in monotonic seconds."""

    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    last: float | None = None

    def token(self) -> None:
        """Something of the answer came in."""
        self.last = time.monotonic()
        self.first = self.first if self.first is not None else self.last

    def generation_seconds(self) -> float | None:
        """From the first to the last token; None if there were not two moments."""
        return self.last - self.first if self.first is not None and self.last is not None else None


class Proxy:
    """`router` is replaced by a reload; a request keeps the one that it began with."""

    def __init__(
        self,
        router: Callable[[], Router],
        supervisor: Supervisor,
        metrics: Metrics,
        session: aiohttp.ClientSession,
        keepalive: float,
    ) -> None:
        self._router = router
        self._supervisor = supervisor
        self._metrics = metrics
        self._session = session
        self._keepalive = keepalive
        self._admissions: dict[str, Admission] = {}
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.open_requests = 0

    def admission(self, name: str) -> Admission:
        """The queue of a profile's worker."""
        if name not in self._admissions:
            self._admissions[name] = Admission(lambda: self._limits(name))
        return self._admissions[name]

    def _limits(self, name: str) -> tuple[int, int]:
        profile = self._router().profiles.profiles.get(name)
        return (profile.concurrency, profile.limits.queue) if profile else (1, 0)

    def forget(self, name: str) -> None:
        """The profile is gone."""
        self._admissions.pop(name, None)

    def refuse_new(self) -> None:
        """The daemon stops: what is open may finish, nothing new is taken."""
        self._refusing = True

    async def until_idle(self) -> None:
        """Return when no request is open."""
        await self._idle.wait()

    async def handle(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        """Answer one request. Raises DraftdError as long as nothing has been sent."""
        if self._refusing:
            raise WorkerError("draftd is stopping", code="stopping", retry_after=5)
        self.open_requests += 1
        self._idle.clear()
        try:
            return await self._handle(request, endpoint)
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()

    async def _handle(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        body = parse_body(await _read(request))
        router = self._router()
        profile = router.resolve(body.get("model"))
        request[PROFILE] = profile.name
        client_model = body.get("model") or profile.name
        prompt = router.profiles.prompt_of(profile)
        forward = prepare(body, endpoint, profile, prompt, upstream_model(profile), client_model)
        if forward.stream:
            return await self._stream(request, forward, profile)
        return await self._answer(request, forward, profile)

    async def _stream(self, request: web.Request, forward: Forward, profile: Profile) -> web.StreamResponse:
        reply = StreamReply(request, _headers(request, profile), self._keepalive)
        try:
            async with reply.kept_alive():
                await self._relay(forward, profile, reply)
            await reply.finish()
        except DraftdError as error:
            if not reply.begun:
                raise
            request[STATUS] = getattr(error, "status", 500)
            await reply.fail(error)
        return reply.response

    async def _answer(self, request: web.Request, forward: Forward, profile: Profile) -> web.StreamResponse:
        body = await self._relay(forward, profile, None)
        return web.json_response(body, headers=_headers(request, profile))

    async def _relay(
        self, forward: Forward, profile: Profile, reply: StreamReply | None
    ) -> dict[str, object]:
        """Wait for a slot and the worker, send the request, pass the answer on; returns it in one piece."""
        timing = Timing()
        worker = self._supervisor.worker(profile.name)
        async with self.admission(profile.name).slot() as waited:
            self._metrics.queue_wait(profile.name, waited)
            try:
                return await self._attempt(worker, forward, profile, timing, reply)
            except upstream.NotSentError:
                # The worker died a moment ago, and we asked before its own task had heard of it.
                await worker.until_changed(NOTICE)
                return await self._attempt(worker, forward, profile, timing, reply)

    async def _attempt(
        self, worker: Worker, forward: Forward, profile: Profile, timing: Timing, reply: StreamReply | None
    ) -> dict[str, object]:
        async with worker.lease() as port:
            url = f"http://{HOST}:{port}{PATHS[forward.endpoint]}"
            async with upstream.post(self._session, url, forward.payload) as response:
                try:
                    if not forward.streamed:
                        return self._take_whole(await upstream.whole(response), forward, profile, timing)
                    return await self._take_stream(response, forward, profile, timing, reply)
                except BrokenAnswerError as error:
                    raise upstream.broken(error) from error

    async def _take_stream(
        self,
        response: aiohttp.ClientResponse,
        forward: Forward,
        profile: Profile,
        timing: Timing,
        reply: StreamReply | None,
    ) -> dict[str, object]:
        answer = Answer(forward.endpoint, forward.model)
        async for data in upstream.events(response):
            chunk = answer.take(data)
            if chunk is None:
                break
            if chunk.get("choices"):
                if timing.first is None:
                    self._metrics.first_token(profile.name, time.monotonic() - timing.began)
                timing.token()
            if reply is not None and (forward.wants_usage or not is_usage_only(chunk)):
                await reply.send(to_event(chunk))
        if not answer.complete:
            raise upstream.truncated()
        self._count(profile.name, answer.usage, timing)
        if reply is not None:
            await reply.send(DONE)
        return answer.whole()

    def _take_whole(
        self, raw: bytes, forward: Forward, profile: Profile, timing: Timing
    ) -> dict[str, object]:
        try:
            body = json.loads(raw)
            usage = body["usage"]
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenAnswerError("no JSON, or without usage") from error
        self._count(profile.name, usage, timing)
        return {**body, "model": forward.model}

    def _count(self, name: str, usage: dict[str, int] | None, timing: Timing) -> None:
        usage = usage or {}
        self._metrics.generation(
            name,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            seconds=timing.generation_seconds(),
        )


def _headers(request: web.Request, profile: Profile) -> dict[str, str]:
    return {"x-request-id": request[REQUEST_ID], "x-draftd-profile": profile.name}


async def _read(request: web.Request) -> bytes:
    """The body, up to the server's limit. Raises RequestError (413, 415)."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RequestError(415, "compressed bodies are not accepted")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RequestError(413, "the body is too large (see max_body_bytes)") from error
