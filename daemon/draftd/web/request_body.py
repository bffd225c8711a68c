"""From the body that a client sent to the body that a worker gets. Pure.

To some bodies that OpenAI's API allows, mlx_lm.server reacts by loading other weights, fetching something from the
network, or breaking its stream; each function here says what it prevents. The client's body is parsed once and
written anew, so that what was routed is what is forwarded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from draftd.errors import RequestError
from draftd.profile_tables import RequestDefaults
from draftd.profiles import MAX_AUTO_DRAFT, Profile
from draftd.protocol import (
    AUTO_DRAFT,
    DRAFT_HEADER,
    DRAFTERS_HEADER,
    LOGIT_BIAS_FIELD,
    MAX_DRAFT_TOKENS,
    MAX_TOP_LOGPROBS,
    MODEL_DRAFTER,
)
from draftd.web import chat_messages, json_codec

Endpoint = Literal["chat.completions", "completions"]

# Fields that would make mlx_lm.server load other weights.
_LOADERS = ("adapters", "draft_model")
# Arguments of apply_chat_template that are not the template's own: they change what it returns, which ends
# mlx_lm.server's generation thread, or the template itself.
_TEMPLATE_ARGUMENTS = frozenset({
    "conversation", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "sanitize_control_tokens",
})  # fmt: skip
# A top_k of the vocabulary's size or more ends the generation thread; as large as this it has no effect.
_MAX_TOP_K = 1000
# mlx_lm.server writes outside its memory for a token that it does not have. Our engine, which knows the tokens,
# takes a bias under this name and refuses what is unknown; mlx_lm.server by itself ignores the name.


def _for_the_template(value: dict[str, Any]) -> dict[str, Any]:
    if taken := _TEMPLATE_ARGUMENTS & value.keys():
        raise ValueError(f"must not hold {', '.join(sorted(taken))}")
    return value


class RequestFields(RequestDefaults):
    """The fields that are checked, beside those that a profile's defaults may have; others pass as they are."""

    model_config = ConfigDict(extra="ignore")

    n: Literal[1] = 1
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_completion_tokens: int = Field(1, ge=1)
    num_draft_tokens: Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)] | Literal["auto"] = 0
    drafters: list[Literal["lookup", "model"]] | None = None
    repetition_context_size: int = Field(0, ge=0, le=100_000)
    presence_context_size: int = Field(0, ge=0, le=100_000)
    frequency_context_size: int = Field(0, ge=0, le=100_000)
    logprobs: bool | Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP_LOGPROBS)
    logit_bias: dict[str, float] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_for_the_template)] | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """What to send to the worker, and what the client wants back.

    `stream` is how the client wants the answer. The worker always streams: so it is seen that it gets on.
    `headers` are for our engine.
    """

    payload: bytes
    endpoint: Endpoint
    model: str
    stream: bool
    wants_usage: bool
    headers: Mapping[str, str]


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError (400) for anything else, without quoting it."""
    try:
        body = json_codec.strictly(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body {_fault(raw)}") from error
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    return body


def _fault(raw: bytes) -> str:
    """What is wrong with a body that was refused, in the words of the json module, which says more."""
    try:
        json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    except RecursionError:
        return "is nested too deeply"
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at character {error.pos}"
    except ValueError:
        return "holds a number that cannot be represented"
    return "holds half of a surrogate pair or a number that cannot be represented"


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


def prepare(
    body: Mapping[str, Any],
    endpoint: Endpoint,
    profile: Profile,
    prompt: str,
    upstream_model: str,
    client_model: str,
) -> Forward:
    """The request for the worker. Raises RequestError (400) with the field at fault."""
    fields = {k: _whole(v) for k, v in body.items() if v is not None and k not in _LOADERS}
    asked = _check(fields)
    _fill_in(fields, profile)
    headers = _drafting(fields, profile)
    if not profile.command:
        _suit_mlx(fields)
    if endpoint == "chat.completions":
        fields["messages"] = chat_messages.with_system_prompt(
            chat_messages.checked(fields, parts=bool(profile.command)), prompt, profile.system_prompt_mode
        )
    else:
        fields["prompt"] = _text_prompt(fields)
    fields |= {"model": upstream_model, "stream": True, "stream_options": {"include_usage": True}}
    wants_usage = bool((asked.stream_options or {}).get("include_usage"))
    return Forward(_encode(fields), endpoint, client_model, asked.stream, wants_usage, headers)


def _whole(value: Any) -> Any:
    """5.0 is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check(fields: dict[str, Any]) -> RequestFields:
    """The checked fields, which also stand in `fields` with the type they are to have."""
    try:
        asked = RequestFields.model_validate(fields)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(detail["loc"][0])
        reason = detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        raise RequestError(400, f"{name} {reason}", param=name) from error
    fields |= {name: getattr(asked, name) for name in asked.model_fields_set}
    return asked


def _fill_in(fields: dict[str, Any], profile: Profile) -> None:
    """The profile's defaults and draft length, where the client says nothing."""
    defaults = profile.defaults.model_dump(exclude_none=True)
    if "max_completion_tokens" in fields:
        defaults.pop("max_tokens", None)
    for key, value in defaults.items():
        fields.setdefault(key, value)
    if profile.draft_model is None:
        if fields.pop("num_draft_tokens", None) == 0 and (profile.drafters or fields.get("drafters")):
            fields["drafters"] = []
    else:  # the worker may be shared with profiles of other draft lengths
        fields.setdefault("num_draft_tokens", "auto" if profile.auto_draft else profile.draft_length)


def _drafting(fields: dict[str, Any], profile: Profile) -> dict[str, str]:
    """Take out of the fields what only our engine understands; returns it as headers.

    `auto` becomes a number in the fields, which is the longest draft then.
    """
    headers: dict[str, str] = {}
    if fields.get("num_draft_tokens") == "auto":
        headers[DRAFT_HEADER] = AUTO_DRAFT
        fields["num_draft_tokens"] = profile.draft_length if profile.auto_draft else MAX_AUTO_DRAFT
    drafters = fields.pop("drafters", profile.drafters)
    if drafters is None:  # the engine uses what there is
        return headers
    if profile.command:
        raise RequestError(
            400, f"'{profile.name}' is served by another server, which drafts by itself", param="drafters"
        )
    if MODEL_DRAFTER in drafters and profile.draft_model is None:
        raise RequestError(400, f"'{profile.name}' has no draft model to draft with", param="drafters")
    return headers | {DRAFTERS_HEADER: ",".join(drafters)}


def _suit_mlx(fields: dict[str, Any]) -> None:
    """Change what OpenAI's API allows and mlx_lm.server refuses, ignores, or dies of."""
    if bias := fields.pop("logit_bias", None):
        fields[LOGIT_BIAS_FIELD] = bias
    if fields.get("tool_choice") == "none":
        fields.pop("tools", None)
    if "seed" in fields:
        fields["seed"] %= 2**64
    if "top_k" in fields:
        fields["top_k"] = min(fields["top_k"], _MAX_TOP_K)
    logprobs = fields.pop("logprobs", False)
    top = fields.pop("top_logprobs", 0)
    if not isinstance(logprobs, bool):  # /v1/completions gives the number here
        logprobs, top = True, logprobs
    if logprobs:
        fields |= {"logprobs": True, "top_logprobs": top}


def _text_prompt(fields: dict[str, Any]) -> str:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise RequestError(400, "prompt must be a text, and not empty", param="prompt")
    return prompt


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        return json_codec.in_utf8(fields)
    except UnicodeEncodeError as error:
        raise RequestError(400, "the body holds half of a surrogate pair") from error
    except RecursionError as error:
        raise RequestError(400, "the body is nested too deeply") from error
