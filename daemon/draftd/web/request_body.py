"""From the fields that a client sent to the body that a worker gets, messages included. Pure.

Some bodies that OpenAI's API allows make mlx_lm.server load other weights, fetch something from the network, or
break its stream; each function here says what it prevents. The client's body was parsed once, and is written anew,
so that what was routed is what is forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Literal

import msgspec

from draftd.errors import RequestError
from draftd.profiles import MAX_AUTO_DRAFT, Profile
from draftd.protocol import (
    AUTO_DRAFT,
    COUNT_FIELD,
    DRAFT_HEADER,
    DRAFTERS_HEADER,
    GRAMMARS_FIELD,
    LOGIT_BIAS_FIELD,
    MODEL_DRAFTER,
    RETURN_DRAFTERS_FIELD,
)
from draftd.web import json_codec
from draftd.web.dialects import fields as tables
from draftd.web.dialects.field_table import Table
from draftd.web.tools import checked_tool, offered, past_calls

Endpoint = Literal["chat.completions", "completions"]

TABLES: Mapping[Endpoint, Table] = {"chat.completions": tables.CHAT, "completions": tables.TEXT}
# A top_k of the vocabulary's size or more ends the generation thread; as large as this it has no effect.
_MAX_TOP_K = 1000
_MAX_BEGINNING = 2**20  # characters
_OF_A_BEGINNING = ("model", "stream", "stream_options", "tools", "chat_template_kwargs", "num_draft_tokens")


class Forward(msgspec.Struct, frozen=True):
    """What to send to the worker, and what the client wants back.

    `stream` is how the client wants the answer. The worker always streams, so that we can see it make progress.
    `headers` are for our engine. With `counts_only` the worker reads nothing of the prompt. `beginning` is a
    request for what this one begins with, its system messages and tools; None if it has none, or is not for us.
    """

    payload: bytes
    endpoint: Endpoint
    model: str
    stream: bool
    wants_usage: bool
    headers: Mapping[str, str]
    counts_only: bool = False
    beginning: Mapping[str, Any] | None = None


def prepare(
    body: Mapping[str, Any],
    endpoint: Endpoint,
    profile: Profile,
    prompt: str,
    upstream_model: str,
    client_model: str,
    *,
    translated: bool = False,
) -> Forward:
    """The request for the worker. One that was `translated` came in another dialect: see checked_messages.

    Raises RequestError (400) with the field at fault.
    """
    foreign = bool(profile.command)
    fields = TABLES[endpoint].checked(body, foreign=foreign)
    options = tables.STREAM_OPTIONS.checked(fields.get("stream_options", {}), "stream_options.")
    if "tools" in fields:
        fields["tools"] = [
            checked_tool(tool, f"tools[{n}]", foreign) for n, tool in enumerate(fields["tools"])
        ]
    stream = fields.get("stream", False)
    if foreign:
        if fields.pop(RETURN_DRAFTERS_FIELD, False):
            raise _drafts_unknown(profile, RETURN_DRAFTERS_FIELD, "does not say what it drafted")
        fields.pop(GRAMMARS_FIELD, None)  # unknown to it: it reads the grammar in the tool's description
        if fields.pop(COUNT_FIELD, False):  # unknown to it: it reads the prompt, and says how long it was
            fields.pop("max_completion_tokens", None)
            fields["max_tokens"] = 1
    else:
        fields = _with_an_effect(fields, TABLES[endpoint])
    fill_in_defaults(fields, profile)
    _fill_in_drafting(fields, profile)
    headers = _drafting(fields, profile)
    if not foreign:
        _suit_mlx(fields)
    if endpoint == "chat.completions":
        messages = checked_messages(fields, foreign=foreign, translated=translated)
        fields["messages"] = with_system_prompt(messages, prompt, profile.system_prompt_mode)
    else:
        fields["prompt"] = text_prompt(fields, foreign)
    fields |= {"model": upstream_model, "stream": True, "stream_options": {"include_usage": True}}
    wants_usage, counts_only = options.get("include_usage", False), fields.get(COUNT_FIELD, False)
    beginning = None if foreign or counts_only else _beginning(fields)
    return Forward(
        encoded(fields), endpoint, client_model, stream, wants_usage, headers, counts_only, beginning
    )


def _beginning(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """See Forward. Nothing is copied: it may be looked at, and is not to be changed."""
    leading = list(takewhile(lambda message: message["role"] == "system", fields.get("messages", ())))
    length = sum(len(message["content"]) for message in leading)
    if length > _MAX_BEGINNING or not (leading or fields.get("tools")):
        return None
    kept = {key: fields[key] for key in _OF_A_BEGINNING if key in fields}
    return kept | {"messages": [*leading, {"role": "user", "content": ""}], "max_tokens": 1, "temperature": 0}


def _with_an_effect(fields: dict[str, Any], table: Table) -> dict[str, Any]:
    """What is left for a worker of our own, which gets nothing that it does not use."""
    tools = fields.pop("tools", None)
    if tools and (tools := offered(tools, fields.get("tool_choice"))):
        fields["tools"] = tools
    if "response_format" in fields:
        fields["response_format"] = _response_format(fields["response_format"])
    if fields.get("top_logprobs") and fields.get("logprobs", False) is False:
        raise RequestError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    if {"max_tokens", "max_completion_tokens"} <= fields.keys():
        fields["max_completion_tokens"] = min(fields.pop("max_tokens"), fields["max_completion_tokens"])
    return table.effective(fields)


def _response_format(wanted: dict[str, Any]) -> dict[str, Any]:
    made = tables.RESPONSE_FORMAT.checked(wanted, "response_format.")
    if "json_schema" in made:
        made["json_schema"] = tables.JSON_SCHEMA.checked(made["json_schema"], "response_format.json_schema.")
    return made


def fill_in_defaults(fields: dict[str, Any], profile: Profile) -> None:
    """The profile's defaults, where the client says nothing."""
    defaults = profile.defaults.model_dump(exclude_none=True)
    if "max_completion_tokens" in fields:
        defaults.pop("max_tokens", None)
    for key, value in defaults.items():
        fields.setdefault(key, value)


def _fill_in_drafting(fields: dict[str, Any], profile: Profile) -> None:
    """The profile's draft length, where the client says nothing."""
    if profile.draft_model is None:
        if fields.pop("num_draft_tokens", None) == 0 and (profile.drafters or fields.get("drafters")):
            fields["drafters"] = []
    else:  # the worker may be shared with profiles of other draft lengths
        fields.setdefault("num_draft_tokens", "auto" if profile.auto_draft else profile.draft_length)


def _drafting(fields: dict[str, Any], profile: Profile) -> dict[str, str]:
    """Take out of the fields what only our engine understands, and return it as headers.

    `auto` becomes a number in the fields, which then is the longest draft.
    """
    headers: dict[str, str] = {}
    if fields.get("num_draft_tokens") == "auto":
        headers[DRAFT_HEADER] = AUTO_DRAFT
        fields["num_draft_tokens"] = profile.draft_length if profile.auto_draft else MAX_AUTO_DRAFT
    drafters = fields.pop("drafters", profile.drafters)
    if drafters is None:  # the engine uses what there is
        return headers
    if profile.command:
        raise _drafts_unknown(profile, "drafters", "drafts by itself")
    if MODEL_DRAFTER in drafters and profile.draft_model is None:
        raise RequestError(400, f"'{profile.name}' has no draft model to draft with", param="drafters")
    return headers | {DRAFTERS_HEADER: ",".join(drafters)}


def _drafts_unknown(profile: Profile, field: str, why: str) -> RequestError:
    return RequestError(400, f"'{profile.name}' is served by another server, which {why}", param=field)


def _suit_mlx(fields: dict[str, Any]) -> None:
    """Change what OpenAI's API allows and mlx_lm.server refuses, ignores, or dies of."""
    if bias := fields.pop("logit_bias", None):
        fields[LOGIT_BIAS_FIELD] = bias
    if "seed" in fields:
        fields["seed"] %= 2**64
    if "top_k" in fields:
        fields["top_k"] = max(0, min(fields["top_k"], _MAX_TOP_K))
    logprobs = fields.pop("logprobs", False)
    top = fields.pop("top_logprobs", 0)
    if not isinstance(logprobs, bool):  # /v1/completions gives the number here
        logprobs, top = True, max(logprobs, top)
    if logprobs:
        fields |= {"logprobs": True, "top_logprobs": top}


def checked_messages(
    fields: dict[str, Any], *, foreign: bool, translated: bool = False
) -> list[dict[str, Any]]:
    """The messages, checked. Another server, a `foreign` one, gets content that holds more than text as it is.

    Those that were `translated` are as they should be already: whoever writes them has checked each piece of them.
    Raises RequestError (400).
    """
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list with at least one message", param="messages")
    if translated:
        return messages
    return [_message(message, f"messages[{index}]", foreign) for index, message in enumerate(messages)]


def _message(message: Any, place: str, foreign: bool) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(400, f"{place} must be an object with a role", param=place)
    made = tables.MESSAGE.checked(message, f"{place}.", foreign=foreign)
    if made["role"] == "function":
        text = f"{place}.role must be tool for what a function returned: function is the older name"
        raise RequestError(400, text, param=f"{place}.role")
    if made["role"] == "developer":  # the newer name of `system`, unknown to chat templates
        made["role"] = "system"
    content = made.get("content")
    # The profile's system prompt may be joined with the client's, so that has to be a text in any case.
    if not foreign or made["role"] == "system" or not _holds_more_than_text(content):
        made["content"] = _content(content, f"{place}.content") + made.pop("refusal", "")
    if "tool_calls" in made:
        made["tool_calls"] = past_calls(made["tool_calls"], f"{place}.tool_calls")
    return made


def _holds_more_than_text(content: Any) -> bool:
    kinds = (
        [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    return any(kind != "text" for kind in kinds)


def _content(content: Any, place: str) -> str:
    """Text, or text parts joined. Images are refused: mlx_lm.server would fetch remote ones, even for a text
    model, and cannot draft with any. (Another server, started by a `command`, gets them as they are.)
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestError(400, f"{place} must be a string or a list of text parts", param=place)
    return "".join(_part_text(part, place) for part in content)


def _part_text(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if kind in ("text", "refusal") else None  # a tuple: it may be of any type
    if not isinstance(text, str):
        raise RequestError(400, f"{place}: only text parts are supported, no images or audio", param=place)
    return text


def with_system_prompt(messages: list[dict[str, Any]], prompt: str, mode: str) -> list[dict[str, Any]]:
    """The messages with the profile's system prompt. It depends on the mode what becomes of the client's own:
    `default` leaves it, and adds the prompt only where there is none; `prepend` puts the prompt in front of it, in
    one message (many templates take only one); `replace` drops it; `off` adds nothing.
    """
    if not prompt or mode == "off":
        return messages
    own = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not own or mode == "replace":
        return [{"role": "system", "content": prompt}, *rest]
    if mode == "prepend":
        texts = [message["content"] for message in own]
        if not texts[0].startswith(prompt):  # else another daemon that has the same profile sends it
            texts.insert(0, prompt)
        return [{"role": "system", "content": "\n\n".join(texts)}, *rest]
    return messages


def text_prompt(fields: dict[str, Any], foreign: bool) -> Any:
    """One text. Another server may also take one list of token ids. Raises RequestError (400)."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if foreign and isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    if not isinstance(prompt, str) or not prompt:
        why = (
            "prompt must be a string, and not empty; lists of several strings or of tokens are not supported"
        )
        raise RequestError(400, why, param="prompt")
    return prompt


def encoded(fields: Mapping[str, Any]) -> bytes:
    """A body as it is sent. Raises RequestError (400)."""
    try:
        return json_codec.in_utf8(fields)
    except UnicodeEncodeError as error:
        raise RequestError(400, "the body holds half of a surrogate pair") from error
    except RecursionError as error:
        raise RequestError(400, "the body is nested too deeply") from error
