"""Answers and their chunks in OpenAI's forms, for both endpoints. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from draftd.engine.answers.answer_text import Part
from draftd.engine.answers.logprobs import TokenNames, chat_form, text_form
from draftd.protocol import DRAFTERS_OF_TEXT

CHAT, TEXT = "chat.completion", "text_completion"


@dataclass(slots=True)
class AnswerForm:
    """Writes one answer. `head` is what all of its chunks begin with; `names` is None if no log-probabilities are
    wanted.
    """

    head: dict[str, Any]
    chat: bool
    names: TokenNames | None
    _calls_sent: int = 0

    def chunk(self, part: Part, finish_reason: str | None, stop_text: str | None = None) -> dict[str, Any]:
        """Return a chunk of a stream. The last one may name the stop text that ended the answer, as vLLM's does."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        choice |= self._logprobs(part) | _drafters(part)
        if stop_text is not None:
            choice["stop_reason"] = stop_text
        if not self.chat:
            return self._body(TEXT, choice | {"text": part.content})
        delta: dict[str, Any] = {"role": "assistant"}
        if part.content:
            delta["content"] = part.content
        if part.reasoning:
            delta["reasoning"] = part.reasoning
        if part.tool_calls:
            delta["tool_calls"] = [
                {**call, "index": self._calls_sent + place} for place, call in enumerate(part.tool_calls)
            ]
            self._calls_sent += len(part.tool_calls)
        return self._body(f"{CHAT}.chunk", choice | {"delta": delta})

    def whole(self, part: Part, finish_reason: str, usage: dict[str, Any]) -> dict[str, Any]:
        """Return an answer in one piece."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        choice |= self._logprobs(part) | _drafters(part)
        if not self.chat:
            return self._body(TEXT, choice | {"text": part.content}) | {"usage": usage}
        message: dict[str, Any] = {"role": "assistant", "content": part.content or None}
        if part.reasoning:
            message["reasoning"] = part.reasoning
        if part.tool_calls:
            message["tool_calls"] = part.tool_calls
        return self._body(CHAT, choice | {"message": message}) | {"usage": usage}

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk behind the last one, for a client that wants the usage of a stream."""
        return {**self.head, "object": f"{CHAT}.chunk" if self.chat else TEXT, "choices": [], "usage": usage}

    def _body(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self.head, "object": kind, "choices": [choice]}

    def _logprobs(self, part: Part) -> dict[str, Any]:
        if self.names is None or not part.tokens:
            return {}
        form = chat_form if self.chat else text_form
        return {"logprobs": form(part.tokens, self.names)}


def _drafters(part: Part) -> dict[str, Any]:
    """Return who drafted which piece of the text, in the order of logprobs; nothing where that is not wanted."""
    by_place = {"content": part.drafted, "reasoning": part.drafted_reasoning}
    told = {place: [piece.told() for piece in pieces] for place, pieces in by_place.items() if pieces}
    return {DRAFTERS_OF_TEXT: told} if told else {}


def usage_of(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """Return `usage`; `cached_tokens`, those of the prompt that were not read again, may be unknown: negative."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return usage | ({"prompt_tokens_details": {"cached_tokens": cached_tokens}} if cached_tokens >= 0 else {})


def error_body(message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error, of the client's or of ours."""
    return {"error": {"message": message, "code": code, "param": param}}
