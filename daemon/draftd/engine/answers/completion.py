"""Answers one request: takes the place of `APIHandler.handle_completion` of mlx_lm's server.

1. The request goes into the queue of the generating thread. If its client leaves while it waits, it is marked, and
   skipped when its turn comes.
2. Each token is added to the answer's text. A stream gets what is certain of it; in between, comments show that
   work goes on. A client that has gone ends the generation, at the next token or the next piece of its prompt.
3. The generation ends by itself or at a stop text. mlx_lm knows nothing of those: it would look for their tokens.

What goes wrong is told in OpenAI's form: 400 if the request is at fault, else 500, and in a stream that has begun
an event in place of its end.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from draftd.engine.answers import stop_texts
from draftd.engine.answers.answer_forms import AnswerForm, error_body, usage_of
from draftd.engine.answers.answer_text import AnswerText, Part
from draftd.engine.answers.arguments import generation_arguments
from draftd.engine.answers.channels import Channels
from draftd.engine.answers.drafted_text import DRAFTER_ATTRIBUTE, DraftedText
from draftd.engine.answers.logprobs import Chosen, TokenNames
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, Client, LeftError, looking
from draftd.engine.answers.roles import check_roles
from draftd.engine.answers.timings import COUNT_ATTRIBUTE, Timings
from draftd.engine.answers.token_spans import TokenSpans
from draftd.engine.answers.tool_calls import is_whole, parse
from draftd.engine.context_limit import count_prompt
from draftd.engine.grammars.enforcing import take_form
from draftd.engine.records import describe
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import COUNT_FIELD, MAX_TOP_LOGPROBS, RETURN_DRAFTERS_FIELD


def handle_completion(self: Any, request: Any, stop_words: Any) -> None:
    """Answer `request`, mlx_lm's CompletionRequest. `self` is its APIHandler; its `stop_words` are not used."""
    client = Client(self)
    with suppress(LeftError):
        try:
            stops = _stops(self.body.get("stop"))
            arguments = generation_arguments(self)
            if request.request_type == "chat":
                check_roles(request.messages, self.response_generator.model_provider.tokenizer)
            if self.body.get(COUNT_FIELD):
                _send_count(self, client, request, count_prompt(self.response_generator, request, arguments))
                return
            if request.request_type == "chat":
                take_form(arguments, self.body, self.response_generator.model_provider)
            with looking(lambda: setattr(arguments, LEFT_ATTRIBUTE, client.gone)):
                context, responses = self.response_generator.generate(
                    request, arguments, functools.partial(_progress, self, client)
                )
        except RefusedRequestError as error:
            _send_error(self, client, HTTPStatus.BAD_REQUEST, error)
            return
        except LeftError:
            raise
        except Exception as error:
            _send_error(self, client, HTTPStatus.INTERNAL_SERVER_ERROR, error)
            return
        try:
            with looking(client.expect):
                _Answer(self, client, request, context, stops).give(responses)
        finally:
            context.stop()


def taking_top_logprobs(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap `validate_model_parameters` of mlx_lm's APIHandler, which takes 11 alternatives at most."""

    @functools.wraps(validate)
    def validate_model_parameters(self: Any) -> None:
        wanted = self.top_logprobs
        many = type(wanted) is int and 0 < wanted <= MAX_TOP_LOGPROBS
        if many:
            self.top_logprobs = 1
        validate(self)
        self.top_logprobs = wanted

    return validate_model_parameters


class _Answer:
    """One answer while it is generated. `handler` is mlx_lm's APIHandler, `context` its GenerationContext."""

    def __init__(
        self, handler: Any, client: Client, request: Any, context: Any, stops: tuple[str, ...]
    ) -> None:
        chat = request.request_type == "chat"
        self._handler = handler
        self._client = client
        self._context = context
        self._tools = request.tools
        self._tokenizer = handler.response_generator.model_provider.tokenizer
        self._names = TokenNames(self._tokenizer) if handler.logprobs else None
        self._form = AnswerForm(_head(handler), chat, self._names)
        self._text = AnswerText(
            Channels(context.text_sm, context.initial_state) if chat else Channels(),
            stops,
            self._calls,
            self._open_calls,
            None if self._names is None else TokenSpans(),
            DraftedText() if handler.body.get(RETURN_DRAFTERS_FIELD) else None,
            one_call=handler.body.get("parallel_tool_calls") is False,
        )
        self._begun = False  # whether any text has come
        self._count = 0
        self._timings = Timings(time.perf_counter())

    def give(self, responses: Iterable[Any]) -> None:
        """Send the answer that mlx_lm's responses make. Raise LeftError if the client goes."""
        self._client.expect()
        if self._handler.stream:
            self._client.begin(self._handler._set_stream_headers, HTTPStatus.OK)
        try:
            reason = self._follow(responses)
        except LeftError:
            raise
        except Exception as error:
            logging.exception("a generation failed")
            self._fail(error)
            return
        usage = usage_of(len(self._context.prompt), self._count, self._context.prompt_cache_count)
        figures = {"timings": self._told_timings()}
        if self._handler.stream:
            self._end_stream(reason, usage, figures)
        else:
            whole = self._form.whole(self._text.take(), reason, usage)
            _send(self._handler, self._client, HTTPStatus.OK, whole | figures)

    def _told_timings(self) -> dict[str, Any]:
        context, drafts = self._context, getattr(self._context, COUNT_ATTRIBUTE, None)
        return self._timings.told(
            len(context.prompt), context.prompt_cache_count, self._count, time.perf_counter(), drafts
        )

    def _follow(self, responses: Iterable[Any]) -> str:
        """Put the tokens together into the answer's text, and send it as it comes; return why it ends."""
        reason, round_ended = None, False
        for response in responses:
            self._client.expect()
            self._count += 1
            if self._count == 1:
                self._timings.first = time.perf_counter()
            drafter = getattr(response, DRAFTER_ATTRIBUTE, None)
            # A round's drafted tokens come with the one after them.
            self._timings.one_round = not round_ended
            round_ended = round_ended or drafter is None
            self._text.feed(response.text, self._chosen(response), drafter)
            reason = response.finish_reason
            if self._text.stopped:
                break
            if self._handler.stream and not reason:  # what the last token brings goes out with the reason
                self._send_part()
        if not reason and not self._text.stopped:
            raise RuntimeError("the generation ended without a reason")
        self._text.finish(cut=reason == "length")
        reason = "stop" if self._text.stopped else reason
        return "tool_calls" if reason == "stop" and self._text.made_calls else str(reason)

    def _calls(self, text: str) -> list[dict[str, Any]] | None:
        # Without tools there is nothing to call: it is text, however much it looks like a call.
        return parse(self._context.tool_parser, text, self._tools) if self._tools else None

    def _open_calls(self, text: str, cut: bool) -> list[dict[str, Any]] | None:
        has_end_mark = bool(self._tokenizer.tool_call_end)  # some models' calls end with the answer
        return None if has_end_mark and (cut or not is_whole(text)) else self._calls(text)

    def _chosen(self, response: Any) -> Chosen | None:
        """Return what there is to say about a token; None for the end of sequence, which is not in the answer."""
        if self._names is None or response.finish_reason == "stop":
            return None
        tops = ((top["id"], top["logprob"]) for top in response.top_tokens)
        text, first = response.text, not self._begun
        self._begun |= bool(text)
        trimmed = first and bool(text) and self._names.text_of(response.token) == f" {text}"
        return Chosen(response.token, response.logprob, tuple(sorted(tops, key=lambda top: -top[1])), trimmed)

    def _send_part(self) -> None:
        if part := self._text.take():
            self._send_event(self._form.chunk(part, None))
        else:
            self._client.comment_if_silent()

    def _send_event(self, body: dict[str, Any]) -> None:
        self._client.write(f"data: {json.dumps(body)}\n\n".encode())

    def _end_stream(self, reason: str, usage: dict[str, Any], figures: dict[str, Any]) -> None:
        """Send the last chunks; the figures are on the very last."""
        last = self._form.chunk(self._text.take(), reason, self._text.stop_text)
        if (self._handler.stream_options or {}).get("include_usage"):
            self._send_event(last)
            last = self._form.usage_chunk(usage)
        self._send_event(last | figures)
        self._client.write(b"data: [DONE]\n\n")

    def _fail(self, error: Exception) -> None:
        if self._handler.stream:
            self._send_event(error_body(describe(error)))
        else:
            _send_error(self._handler, self._client, HTTPStatus.INTERNAL_SERVER_ERROR, error)


def _send_count(handler: Any, client: Client, request: Any, tokens: int) -> None:
    """Answer with an empty text whose usage has the tokens of the prompt."""
    form = AnswerForm(_head(handler), request.request_type == "chat", None)
    usage = usage_of(tokens, 0, -1)
    if not handler.stream:
        _send(handler, client, HTTPStatus.OK, form.whole(Part(), "stop", usage))
        return
    client.begin(handler._set_stream_headers, HTTPStatus.OK)
    for body in (form.chunk(Part(), "stop"), form.usage_chunk(usage)):
        client.write(f"data: {json.dumps(body)}\n\n".encode())
    client.write(b"data: [DONE]\n\n")


def _stops(stop: Any) -> tuple[str, ...]:
    try:
        return stop_texts.checked(stop)
    except ValueError as error:
        raise RefusedRequestError(str(error), param="stop") from error


def _progress(handler: Any, client: Client, processed: int, total: int) -> None:
    """Take note of another piece of the prompt that has been read."""
    logging.info(f"Prompt processing progress: {processed}/{total}")
    client.expect()
    if handler.stream:
        client.write(f": keepalive {processed}/{total}\n\n".encode())


def _head(handler: Any) -> dict[str, Any]:
    return {
        "id": handler.request_id,
        "system_fingerprint": handler.system_fingerprint,
        "model": handler.requested_model,
        "created": handler.created,
    }


def _send_error(handler: Any, client: Client, status: HTTPStatus, error: Exception) -> None:
    if isinstance(error, RefusedRequestError):
        body = error_body(str(error), code=error.code, param=error.param)
    else:
        body = error_body(describe(error))
    _send(handler, client, status, body)


def _send(handler: Any, client: Client, status: HTTPStatus, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    client.begin(handler._set_completion_headers, status, length=len(data))
    client.write(data)
