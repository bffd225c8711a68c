"""The OpenAPI 3.1 document at /openapi.json, made from the routes, the handlers' docstrings and the fields.

Pure. For a route that is not in BODIES or ANSWERS it has the path, the method and the docstring's first line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model
from pydantic.json_schema import models_json_schema

from draftd.web.dialects.field_table import Handling, Row, Table
from draftd.web.dialects.fields import CHAT, TEXT
from draftd.web.dialects.messages_fields import COUNT, MESSAGES
from draftd.web.dialects.responses_fields import RESPONSES


class Message(BaseModel):
    """One message of a chat; other fields pass as they are."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


def _request(name: str, doc: str, table: Table, **own: Any) -> type[BaseModel]:
    """The body of a request; `own` are fields whose check is not in the table."""
    fields: dict[str, Any] = {row.name: (_values(row), None) for row in table.rows.values()}
    return create_model(name, __doc__=doc, **{**fields, "model": (str | None, None), **own})


def _values(row: Row) -> Any:
    """The type of what is taken for a field."""
    if row.handling is Handling.REFUSED:
        return Annotated[Any, WithJsonSchema({"enum": [None, *row.harmless]})]
    return row.check


class Usage(BaseModel):
    """Counts of tokens; `prompt_tokens_details.cached_tokens` of the prompt's came out of the prompt cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None


class Timings(BaseModel):
    """Tokens that were read and generated, and how long that took, by llama.cpp's names.

    `cache_n` are prompt tokens that came out of the cache; `draft_n` is present if something was drafted.
    """

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: int | None = None
    draft_n_accepted: int | None = None


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None
    timings: Timings | None = None


class ChatCompletion(_Completion):
    """The answer in one piece; with `stream`, server-sent events of `chat.completion.chunk` and `[DONE]`."""

    object: Literal["chat.completion"]


class TextCompletion(_Completion):
    """The answer to a text request; with `stream`, server-sent events and `[DONE]`."""

    object: Literal["text_completion"]


class AnthropicMessage(BaseModel):
    """The answer in Anthropic's form; with `stream`, their events."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, int]


class TokenCount(BaseModel):
    """How many tokens a prompt has."""

    input_tokens: int


class Response(BaseModel):
    """The answer in the form of OpenAI's responses; with `stream`, their events."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class Model(BaseModel):
    """A profile, as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    context_length: int | None = None
    context_window: int | None = None
    max_model_len: int | None = None


class ModelList(BaseModel):
    """All profiles."""

    object: Literal["list"]
    data: list[Model]
    models: list[Any]


class ErrorFields(BaseModel):
    """What went wrong: `code` is for programs, `message` for people."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """The body of every error."""

    model_config = ConfigDict(title="Error")

    error: ErrorFields


_CHAT = _request(
    "ChatRequest",
    "The body of a chat request. `model` is a profile or one of its aliases; without it, the default profile.",
    CHAT,
    messages=(list[Message], Field(min_length=1)),
)
_TEXT = _request(
    "TextRequest",
    "The body of a request to complete a text.",
    TEXT,
    prompt=(str | list[str], Field(min_length=1)),
)
_MESSAGES = _request(
    "MessagesRequest",
    "The body of a request in Anthropic's form.",
    MESSAGES,
    messages=(list[dict[str, Any]], Field(min_length=1)),
)
_COUNT = _request(
    "CountRequest",
    "The body of a MessagesRequest, without the fields that only concern the answer.",
    COUNT,
    messages=(list[dict[str, Any]], Field(min_length=1)),
)
_RESPONSES = _request(
    "ResponsesRequest",
    "The body of a request in the form of OpenAI's responses.",
    RESPONSES,
    input=(str | list[dict[str, Any]], Field(min_length=1)),
)
BODIES: dict[str, type[BaseModel]] = {
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _COUNT,
    "/v1/responses": _RESPONSES,
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _TEXT,
}
ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/completions": TextCompletion,
    "/v1/messages": AnthropicMessage,
    "/v1/messages/count_tokens": TokenCount,
    "/v1/responses": Response,
    "/v1/models": ModelList,
    "/v1/models/{id}": Model,
}
_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path, and its handler."""

    method: str
    path: str
    handler: Callable[..., Any]


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    models: list[type[BaseModel]] = [*BODIES.values(), *ANSWERS.values(), Error]
    _, schemas = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route)
    bearer = {"type": "http", "scheme": "bearer", "description": "Needed if the daemon has an api_key."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "draftd", "version": version},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"api_key": bearer}},
        "security": [{}, {"api_key": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    path = _PARAMETER.sub(r"{\1}", route.path)
    doc = (route.handler.__doc__ or path).strip()
    answer = _json(ANSWERS[path]) if path in ANSWERS else {}
    operation: dict[str, Any] = {
        "summary": doc.splitlines()[0].rstrip("."),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ],
        "responses": {
            "2XX": {"description": "Success", **answer},
            "default": {"description": "An error", **_json(Error)},
        },
    }
    if path in BODIES:
        operation["requestBody"] = {"required": True, **_json(BODIES[path])}
    return operation


def _json(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"content": {"application/json": {"schema": schema}}}
