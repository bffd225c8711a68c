"""The answer to a request for a completion: it is checked, counted, and passed on as it comes or put together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from draftd.telemetry.metrics import Metrics
from draftd.telemetry.request_record import RequestRecord
from draftd.web import json_codec
from draftd.web.answer import Answer
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.answer_stream import Relay
from draftd.web.call import Call, Connection
from draftd.web.client import StreamReply
from draftd.web.request_body import Forward
from draftd.web.worker_http import IN_THE_MIDDLE, BrokenOffError
from draftd.workers.usage import Lease


class CompletionAnswer:
    """Takes the answer of one call. `reply` is None for a client that wants it in one piece; `note` tells
    the journal that more is known of it. Its content is known only if it is kept, or goes out in one piece.
    """

    def __init__(
        self,
        call: Call,
        forward: Forward,
        reply: StreamReply | None,
        metrics: Metrics,
        note: Callable[[RequestRecord], None],
        *,
        is_kept: bool = False,
    ) -> None:
        self._name, self._record = call.name, call.record
        self._forward = forward
        self._reply = reply
        self._metrics = metrics
        self._note = note
        self._answer = Answer(forward.endpoint, forward.model, call.headers.get("x-request-id", ""))
        self._relay = Relay(
            self._answer, streams=reply is not None, wants_usage=forward.wants_usage, is_kept=is_kept
        )
        self._began = time.monotonic()
        self._first_token: float | None = None  # monotonic seconds, as all times here
        self._last_token: float | None = None

    @property
    def content(self) -> str:
        """What has come of it, as JSON: its message, or its text; "" if nothing has."""
        if not self._answer.begun:
            return ""
        [choice] = self._answer.whole()["choices"]
        return json.dumps(choice.get("message") or choice.get("text"), ensure_ascii=False, indent=1)

    async def take(self, connection: Connection, lease: Lease) -> bytes:
        """Pass on all but the last piece, and return that. Raises what is wrong with the answer."""
        answer, relay = self._answer, self._relay
        try:
            while piece := await connection.read():
                lease.progress()
                events = relay.feed(piece)
                self._note_tokens()
                if answer.complete:
                    return self._complete(events)
                await self._send(events)
                if answer.done:
                    break
        except BrokenOffError:
            if answer.finish_reason is None:
                raise
        return await self._end()

    async def _end(self) -> bytes:
        """The last piece of an answer that has ended without an end mark."""
        answer, relay = self._answer, self._relay
        events = relay.finish()
        self._note_tokens()
        if answer.finish_reason is not None and relay.broken is None:
            return self._complete(events)
        await self._send(events)
        if answer.done:
            raise BrokenAnswerError("it has no finish_reason")
        raise BrokenOffError(IN_THE_MIDDLE, "" if answer.begun else "what the worker sent holds no answer")

    async def _send(self, events: bytes) -> None:
        """Pass on what has come so far. Raises what is wrong with it."""
        if self._reply is not None and events:
            await self._reply.send(events)
        if self._relay.broken is not None:
            raise self._relay.broken

    def _complete(self, events: bytes) -> bytes:
        """The rest of an answer that has come whole."""
        self._count()
        if self._reply is not None:
            return events + self._relay.end()
        return json_codec.dumps(self._answer.whole())

    def _count(self) -> None:
        answer, seconds = self._answer, self._generation_seconds()
        prompt_tokens, tokens = answer.tokens("prompt_tokens"), answer.tokens("completion_tokens")
        if (answer.timings or {}).get("predicted_per_second") == 0:
            seconds = None  # the worker cannot say: its tokens came at once, whenever they came to us
        measured = (tokens - 1) / seconds if tokens > 1 and seconds else None
        record = self._record
        record.prompt_tokens, record.cached_tokens, record.tokens = (
            prompt_tokens,
            answer.cached_tokens,
            tokens,
        )
        record.tokens_per_second = answer.told_speed or measured
        record.proposed, record.accepted = answer.timing("draft_n"), answer.timing("draft_n_accepted")
        self._note(record)
        if not self._forward.counts_only:
            self._metrics.generation(
                self._name,
                prompt_tokens=prompt_tokens,
                completion_tokens=tokens,
                seconds=seconds,
                cached_tokens=answer.cached_tokens,
            )

    def _note_tokens(self) -> None:
        if not self._relay.tokens:
            return
        self._last_token = time.monotonic()
        if self._first_token is None:
            self._first_token = self._last_token
            self._record.first_token = self._first_token - self._began
            self._metrics.first_token(self._name, self._record.first_token)
            self._note(self._record)

    def _generation_seconds(self) -> float | None:
        """From the first to the last token; None if none came."""
        if self._first_token is None or self._last_token is None:
            return None
        return self._last_token - self._first_token
