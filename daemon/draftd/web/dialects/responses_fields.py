"""Which fields a request in the form of OpenAI's responses may have, and what becomes of each. Pure.

What is translated is checked against the table of chat completions afterwards, which refuses what cannot be done.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from draftd.web.dialects.field_table import Count, Object, Table, honoured, idle, refused, translated

_CACHE = "there is one prompt cache, and it is always used"
_ACCOUNTS = "draftd keeps no accounts"
_STORED = "draftd stores no answers; send the whole conversation in `input`"
_OWN_TOOLS = "draftd has no tools of its own"


_INCLUDABLE = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
]  # fmt: skip


def _included(value: list[str]) -> list[str]:
    """What may be asked for in addition to the answer: most of it comes from tools that draftd does not have."""
    if "message.output_text.logprobs" in value:
        raise ValueError("must not hold message.output_text.logprobs: chat completions have them")
    return value


RESPONSES = Table(
    (
        honoured("model", "a profile or one of its aliases"),
        translated(
            "input", "text, reasoning, tool calls and their outputs; images only for a `command`", Any
        ),
        translated("instructions", "the first part of the system message", str),
        translated("tools", "functions and custom tools; tools of other kinds are left out", list[Object]),
        translated("tool_choice", "as in a chat", str | Object),
        honoured("parallel_tool_calls", "", bool),
        translated("text", "see the rows below", Object),
        translated("reasoning", "see the rows below", Object),
        translated("max_output_tokens", "`max_tokens`; cut to what is left of the context", Count),
        honoured("temperature", ""),
        honoured("top_p", ""),
        honoured("stream", "", bool),
        translated("stream_options", "as in a chat", Object),
        idle(
            "include",
            "reasoning is sent as it is; log-probabilities are refused",
            Annotated[list[_INCLUDABLE], AfterValidator(_included)],
        ),
        idle("max_tool_calls", _OWN_TOOLS, Count),
        idle("metadata", "it comes back in the answer", Object),
        idle("client_metadata", _ACCOUNTS, Object),
        idle("user", _ACCOUNTS, str),
        idle("safety_identifier", _ACCOUNTS, str),
        idle("prompt_cache_key", _CACHE, str),
        idle("prompt_cache_options", _CACHE, Object),
        idle("prompt_cache_retention", _CACHE, str),
        refused("store", "draftd stores no answers", False),
        refused("previous_response_id", _STORED, passed_on=False),
        refused("conversation", _STORED, passed_on=False),
        refused("prompt", "draftd stores no prompts", passed_on=False),
        refused("background", "an answer is sent while it is made", False),
        refused("background_options", "an answer is sent while it is made"),
        refused("truncation", "draftd leaves a conversation as it is", "disabled"),
        refused("context_management", "draftd leaves a conversation as it is", []),
        refused("service_tier", "all requests are served alike", "auto", "default"),
        refused("moderation", "draftd judges no texts"),
        refused("image", _OWN_TOOLS),
        refused("access_programs", _ACCOUNTS),
        refused("top_logprobs", "chat completions have log-probabilities"),
    )
)
TEXT_OUTPUT = Table(
    (
        translated(
            "format", "`response_format`: JSON of any form, or by a schema, which is enforced", Object
        ),
        refused("verbosity", "no model here has been taught it", "medium"),
    )
)
REASONING = Table(
    (
        translated(
            "effort",
            "`reasoning_effort`, as in a chat",
            Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"],
        ),
        idle("summary", "reasoning is sent whole", Literal["auto", "concise", "detailed"]),
        idle("generate_summary", "reasoning is sent whole", Literal["auto", "concise", "detailed"]),
        idle(
            "context",
            "the chat template decides whether the reasoning of earlier turns stays",
            Literal["auto", "current_turn", "all_turns"],
        ),
        refused("mode", "no model here has been taught it", "standard"),
    )
)
INNER = {"text.": TEXT_OUTPUT, "reasoning.": REASONING}
