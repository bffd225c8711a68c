"""Which fields a request in Anthropic's form may have, and what becomes of each. Pure.

What is translated is checked against the table of chat completions afterwards, which refuses what cannot be done.
Blocks and tools have more fields than these: those that mean something only to Anthropic's own servers are dropped,
and a block or tool of an unknown kind is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from draftd.web.dialects.field_table import Count, Object, Table, honoured, idle, refused, translated

_CACHE = "there is one prompt cache, and it is always used"
_ACCOUNTS = "draftd keeps no accounts"
_MAX_SHOWN = 100  # characters of an unknown name that the client is shown


def _edits(value: dict[str, Any]) -> dict[str, Any]:
    """The chat template decides whether the thinking of earlier turns stays; nothing else may be edited."""
    if unknown := value.keys() - {"edits"}:
        raise ValueError(f"must hold nothing but edits, and holds {min(unknown)[:_MAX_SHOWN]!r}")
    edits = value.get("edits") or []
    if not isinstance(edits, list) or not all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking") for edit in edits
    ):
        raise ValueError("must hold no edits but clear_thinking: draftd leaves a conversation as it is")
    return value


_TOOLS_AND_TEXTS = (
    honoured("model", "a profile or one of its aliases"),
    translated("messages", "text, thinking, tool calls and their results; images only for a `command`"),
    translated(
        "system", "the first message; the billing header of Claude Code is left out", str | list[Object]
    ),
    translated("tools", "functions", list[Object]),
    translated("tool_choice", "as in a chat; `disable_parallel_tool_use` is honoured", Object),
    translated("thinking", "`enable_thinking` of the chat template; `max_tokens` is the budget", Object),
    translated("output_config", "see the rows below", Object),
    idle("cache_control", _CACHE, Object),
    idle("user_profile_id", _ACCOUNTS, str),
    idle("workspace_id", _ACCOUNTS, str),
    translated(
        "context_management",
        "`clear_thinking` is the chat template's",
        Annotated[Object, AfterValidator(_edits)],
    ),
    refused("speed", "all requests are served alike", "standard"),
)
COUNT = Table(_TOOLS_AND_TEXTS)
MESSAGES = Table(
    (
        *_TOOLS_AND_TEXTS,
        translated("max_tokens", "cut to what is left of the context", Count),
        honoured("stream", "", bool),
        translated("stop_sequences", "`stop`", list[str]),
        honoured("temperature", ""),
        honoured("top_k", ""),
        honoured("top_p", ""),
        idle("metadata", _ACCOUNTS, Object),
        idle("service_tier", "all requests are served alike", Literal["auto", "standard_only"]),
        refused("container", "draftd runs nothing for a model"),
        refused("diagnostics", "draftd stores no answers"),
        refused("inference_geo", "requests are served on this machine"),
    )
)
OUTPUT = Table(
    (
        idle("effort", "no model here has been taught it", Literal["low", "medium", "high", "xhigh", "max"]),
        translated("format", "`response_format`: JSON by a schema, which is enforced", Object),
    )
)
THINKING = Table(
    (
        translated(
            "type",
            "disabled, or what the template can do",
            Literal["enabled", "adaptive", "disabled"],
        ),
        idle("budget_tokens", "`max_tokens` counts thinking too", Count),
        idle(
            "display",
            "thinking is sent: it belongs to the next request's prompt",
            Literal["summarized", "omitted"],
        ),
    )
)
INNER = {"output_config.": OUTPUT, "thinking.": THINKING}
