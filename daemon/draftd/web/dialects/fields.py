"""Which fields a request may have, and what becomes of each: the one table, which `docs/api.md` is made from. Pure.

No field is accepted and ignored. A field is honoured; or put in another way for the worker; or without effect, as
it cannot change the answer; or refused by its name. A refused field may still have the values that ask for nothing
(`n: 1`, `echo: false`), which clients send out of habit. `null` counts as left out.

A name that stands nowhere here is refused as well: OpenAI's API does so, and whoever misspells `temperature`, or
asks for what only another server can do, should hear of it. Only in messages and tools further fields pass: they
go to the model's chat template, and each template knows some of its own.

A server that a profile's `command` starts may know more. It gets what is refused here or unknown as it is, unless
draftd itself stands in the way (`passed_on=False`). To build what is refused now, change its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from draftd.profile_tables import RequestDefaults
from draftd.profiles import MAX_DRAFT_TOKENS
from draftd.protocol import MAX_TOP_LOGPROBS
from draftd.web.dialects.field_table import Handling, Row, Table

# Arguments of apply_chat_template that are not the template's own: they change what it returns, which ends
# mlx_lm.server's generation thread, or the template itself.
_TEMPLATE_ARGUMENTS = frozenset({
    "conversation", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "sanitize_control_tokens",
})  # fmt: skip


def _honoured(name: str, note: str = "", check: Any = None) -> Row:
    """Without a `check` that of the profiles' defaults, which are requests' fields."""
    if check is None:
        known = RequestDefaults.model_fields[name]
        check = Annotated[(known.annotation, *known.metadata)] if known.metadata else known.annotation
    return Row(name, Handling.HONOURED, note, check)


def _translated(name: str, note: str, check: Any = None) -> Row:
    row = _honoured(name, note, check)
    return Row(name, Handling.TRANSLATED, note, row.check)


def _idle(name: str, note: str, check: Any) -> Row:
    return Row(name, Handling.NO_EFFECT, note, check)


def _refused(name: str, note: str, *harmless: Any, passed_on: bool = True) -> Row:
    return Row(name, Handling.REFUSED, note, Any, harmless, passed_on)


def _for_the_template(value: dict[str, Any]) -> dict[str, Any]:
    if taken := _TEMPLATE_ARGUMENTS & value.keys():
        raise ValueError(f"must not hold {', '.join(sorted(taken))}")
    return value


def _role(value: str) -> str:
    if value == "function":
        raise ValueError("must be tool for what a function returned: function is the older name")
    return value


_Object = dict[str, Any]
_Count = Annotated[int, Field(ge=1)]
_Tokens = Annotated[int, Field(ge=0, le=100_000)]
_Bias = dict[str, Annotated[float, Field(ge=-100, le=100)]]
_NO_SCHEMA = "structured output is not built yet"
_WEIGHTS = "the profile chooses the weights"

_COMMON = (
    _honoured("model", "a profile or one of its aliases", Any),
    _honoured("stream", "", bool),
    _honoured("stream_options", "", _Object),
    _honoured("temperature"),
    _honoured("top_p"),
    _translated("top_k", "-1 is 0, no limit", Annotated[int, Field(ge=-1)]),
    _honoured("min_p"),
    _honoured("seed", "any whole number"),
    _honoured("stop", "up to 16 texts of 1 to 256 characters"),
    _translated("max_tokens", "cut to what is left of the context"),
    _translated("max_completion_tokens", "the newer name; of both the smaller one counts", _Count),
    _honoured("presence_penalty"),
    _honoured("frequency_penalty"),
    _honoured("repetition_penalty"),
    *(
        _honoured(f"{name}_context_size", "tokens that the penalty looks back", _Tokens)
        for name in ("presence", "frequency", "repetition")
    ),
    _honoured("xtc_probability"),
    _honoured("xtc_threshold"),
    _honoured("logit_bias", "-100 to 100 for each token, by its number", _Bias),
    _honoured(
        "logprobs",
        "true or false; in `/v1/completions` how many alternatives",
        bool | Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)],
    ),
    _honoured("top_logprobs", "needs `logprobs`", Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]),
    _honoured(
        "num_draft_tokens",
        'draft length of this request, or `"auto"`',
        Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)] | Literal["auto"],
    ),
    _honoured("drafters", "what may draft for this request", list[Literal["lookup", "model"]]),
    _idle("user", "draftd keeps no accounts", str),
    _idle("cache_prompt", "the prompt cache is always used", bool),
    _refused("n", "draftd gives one answer to a request", 1, passed_on=False),
    _refused("adapters", _WEIGHTS, passed_on=False),
    _refused("draft_model", _WEIGHTS, passed_on=False),
)

_CHAT = (
    _translated("messages", "see the rows below", Any),
    _honoured("tools", "see the rows below", list[_Object]),
    _refused("tool_choice", "calls cannot be enforced yet", "auto", "none"),
    _honoured("parallel_tool_calls", "false ends the answer after its first call", bool),
    _honoured(
        "chat_template_kwargs",
        "arguments of the model's own template",
        Annotated[_Object, AfterValidator(_for_the_template)],
    ),
    _idle("metadata", "draftd stores no answers", _Object),
    _idle("prediction", "a hint that could only save time", _Object),
    _idle("prompt_cache_key", "there is one prompt cache, and it is always used", str),
    _idle("prompt_cache_options", "there is one prompt cache, and it is always used", _Object),
    _idle("prompt_cache_retention", "there is one prompt cache, and it is always used", str),
    _idle("safety_identifier", "draftd keeps no accounts", str),
    _refused("response_format", _NO_SCHEMA, {"type": "text"}),
    _refused("reasoning_effort", "`chat_template_kwargs` has it for models whose template knows it"),
    _refused("verbosity", "no model here has been taught it", "medium"),
    _refused("functions", "it is older than `tools`", [], passed_on=False),
    _refused("function_call", "it is older than `tool_choice`", "none", "auto", passed_on=False),
    _refused("store", "draftd stores no answers", False),
    _refused("service_tier", "all requests are served alike", "auto", "default"),
    _refused("web_search_options", "a model here has no way to the web"),
    _refused("moderation", "draftd judges no texts", passed_on=False),
    _refused("modalities", "answers are texts", ["text"], passed_on=False),
    _refused("audio", "answers are texts", passed_on=False),
    _refused("role_mapping", "prompts are made by the model's chat template"),
)
_TEXT = (
    _translated("prompt", "one text, alone or in a list", Any),
    _refused("suffix", "put the model's own marks for filling in into the prompt", ""),
    _refused("echo", "the answer is what follows the prompt", False),
    _refused("best_of", "draftd gives one answer to a request", 1),
)
CHAT = Table((*_COMMON, *_CHAT), elsewhere={row.name: "/v1/completions" for row in _TEXT})
TEXT = Table((*_COMMON, *_TEXT), elsewhere={row.name: "/v1/chat/completions" for row in _CHAT})
STREAM_OPTIONS = Table(
    (
        _honoured("include_usage", "", bool),
        _refused("include_obfuscation", "events are sent as they are", False),
    )
)
MESSAGE = Table(
    (
        _translated("role", "`developer` is `system`", Annotated[str, AfterValidator(_role)]),
        _translated("content", "text, or parts of it; the profile's system prompt joins in", Any),
        _translated("refusal", "joins the content", str),
        _honoured("name", "goes to the chat template", str),
        _translated("tool_calls", "calls of functions; their arguments as JSON", Any),
        _honoured("tool_call_id", "goes to the chat template", str),
        _refused("function_call", "it is older than `tool_calls`"),
        _refused("audio", "draftd stores no answers"),
    ),
    open=True,
)
TOOL = Table(
    (
        _refused("type", "tools of other kinds are not built yet", "function"),
        _honoured("function", "", _Object),
        _refused("custom", "tools of other kinds are not built yet"),
    ),
    open=True,
)
FUNCTION = Table(
    (
        _honoured("name", "", Annotated[str, Field(min_length=1)]),
        _honoured("description", "goes to the chat template", str),
        _honoured("parameters", "goes to the chat template", _Object),
        _refused("strict", _NO_SCHEMA, False),
    ),
    open=True,
)
# Where the fields of an object within a body stand; `[]` is for each of a list.
INNER: Mapping[str, Table] = {
    "stream_options.": STREAM_OPTIONS,
    "messages[].": MESSAGE,
    "tools[].": TOOL,
    "tools[].function.": FUNCTION,
}
