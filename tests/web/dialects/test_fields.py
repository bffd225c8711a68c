"""The tables of fields know every field that the official packages can send, and no more than they say."""

from __future__ import annotations

from typing import Any

import pytest

from draftd.errors import RequestError
from draftd.profile_tables import RequestDefaults
from draftd.web.dialects import messages_fields, responses_fields
from draftd.web.dialects.field_table import Handling, Table
from draftd.web.dialects.fields import (
    CHAT,
    FUNCTION,
    INNER,
    JSON_SCHEMA,
    MESSAGE,
    RESPONSE_FORMAT,
    STREAM_OPTIONS,
    TEXT,
    TOOL,
)
from draftd.web.dialects.messages_fields import COUNT, MESSAGES, OUTPUT, THINKING
from draftd.web.dialects.responses_fields import REASONING, RESPONSES, TEXT_OUTPUT

# What mlx_lm.server, draftd and a few other servers have beyond OpenAI's own.
MORE = {
    "adapters", "cache_prompt", "count_only", "draft_model", "drafters", "frequency_context_size", "min_p",
    "num_draft_tokens", "presence_context_size", "repetition_context_size", "repetition_penalty",
    "return_drafters", "top_k", "xtc_probability", "xtc_threshold",
}  # fmt: skip
# The package has dropped these, or has them only in its betas; Claude Code and older packages send them.
OF_MESSAGES = {"context_management", "temperature", "top_k", "top_p"}
TABLES = {
    "chat": CHAT,
    "text": TEXT,
    **INNER,
    "messages": MESSAGES,
    "count": COUNT,
    **messages_fields.INNER,
    "responses": RESPONSES,
    **responses_fields.INNER,
}
REFUSED = [
    (name, row)
    for name, table in TABLES.items()
    for row in table.rows.values()
    if row.handling is Handling.REFUSED
]


def of_the_packages() -> list[tuple[Table, list[Any], set[str]]]:
    """Each of TABLES, the packages' types for it, and the fields that it has beyond them.

    The packages take seconds to import, in each process that collects.
    """
    from anthropic.types import (
        OutputConfigParam,
        ThinkingConfigAdaptiveParam,
        ThinkingConfigDisabledParam,
        ThinkingConfigEnabledParam,
        message_count_tokens_params,
        message_create_params,
    )
    from openai.types import completion_create_params as text_params
    from openai.types.chat import (
        ChatCompletionAssistantMessageParam,
        ChatCompletionCustomToolParam,
        ChatCompletionDeveloperMessageParam,
        ChatCompletionFunctionToolParam,
        ChatCompletionStreamOptionsParam,
        ChatCompletionSystemMessageParam,
        ChatCompletionToolMessageParam,
        ChatCompletionUserMessageParam,
    )
    from openai.types.chat import completion_create_params as chat_params
    from openai.types.responses import ResponseTextConfigParam, response_create_params
    from openai.types.shared_params import (
        FunctionDefinition,
        Reasoning,
        ResponseFormatJSONObject,
        ResponseFormatJSONSchema,
        response_format_json_schema,
    )

    return [
        (
            CHAT,
            [chat_params.CompletionCreateParamsStreaming],
            MORE | {"chat_template_kwargs", "role_mapping", "tool_grammars"},
        ),
        (
            TEXT,
            [text_params.CompletionCreateParamsStreaming],
            MORE | {"max_completion_tokens", "top_logprobs"},
        ),
        (STREAM_OPTIONS, [ChatCompletionStreamOptionsParam], set()),
        (RESPONSE_FORMAT, [ResponseFormatJSONObject, ResponseFormatJSONSchema], {"schema"}),
        (JSON_SCHEMA, [response_format_json_schema.JSONSchema], set()),
        (
            MESSAGE,
            [
                ChatCompletionAssistantMessageParam,
                ChatCompletionDeveloperMessageParam,
                ChatCompletionSystemMessageParam,
                ChatCompletionToolMessageParam,
                ChatCompletionUserMessageParam,
            ],
            set(),
        ),
        (TOOL, [ChatCompletionFunctionToolParam, ChatCompletionCustomToolParam], set()),
        (FUNCTION, [FunctionDefinition], set()),
        (MESSAGES, [message_create_params.MessageCreateParamsStreaming], OF_MESSAGES),
        (COUNT, [message_count_tokens_params.MessageCountTokensParams], {"context_management"}),
        (OUTPUT, [OutputConfigParam], set()),
        (
            THINKING,
            [ThinkingConfigAdaptiveParam, ThinkingConfigDisabledParam, ThinkingConfigEnabledParam],
            set(),
        ),
        # Codex sends `client_metadata`.
        (RESPONSES, [response_create_params.ResponseCreateParamsStreaming], {"client_metadata"}),
        (TEXT_OUTPUT, [ResponseTextConfigParam], set()),
        (REASONING, [Reasoning], set()),
    ]


@pytest.mark.thorough
def test_the_fields_are_those_of_the_packages() -> None:
    for name, (table, types, more) in zip(TABLES, of_the_packages(), strict=True):
        theirs = {field for each in types for field in each.__annotations__}
        assert len(theirs) >= 2
        assert set(table.rows) - more == theirs, f"{name}: a field is new, or gone: decide what becomes of it"


@pytest.mark.parametrize(("table", "row"), REFUSED, ids=[f"{name} {row.name}" for name, row in REFUSED])
def test_what_is_refused_is_refused_by_its_name(table: str, row: Any) -> None:
    for value in (0, 2, True, "x", {}, {"type": "json_object"}, [1]):
        with pytest.raises(RequestError) as caught:
            TABLES[table].checked({row.name: value})
        assert caught.value.param == row.name
        assert caught.value.code == ("unsupported_value" if row.harmless else "unsupported_parameter")
        assert row.note in str(caught.value)
    for value in row.harmless:
        assert TABLES[table].checked({row.name: value}) == {row.name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tool_choice", "sometimes"),
        ("response_format", "json_object"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("n", 2),
        ("store", True),
        ("modalities", ["text", "audio"]),
        ("service_tier", "priority"),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_what_nobody_would_do_is_refused(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{name} "):
        CHAT.checked({name: value})


def test_the_defaults_of_profiles_are_fields() -> None:
    assert set(RequestDefaults.model_fields) <= set(CHAT.rows)


def test_every_row_says_what_is_done() -> None:
    plain = {Handling.HONOURED}
    silent = [
        row.name
        for table in TABLES.values()
        for row in table.rows.values()
        if not row.note and row.handling not in plain
    ]
    assert silent == []
