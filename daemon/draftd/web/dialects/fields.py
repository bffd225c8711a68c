"""Which fields a request may have, and what becomes of each: the one table, from which `docs/api.md` is made. Pure.

No field is accepted and ignored. A field is honoured; or put in another way for the worker; or without effect, as
it cannot change the answer; or refused by its name. A refused field may still have the values that ask for nothing
(`n: 1`, `echo: false`), which clients send out of habit. `null` counts as left out.

A name that stands nowhere here is refused as well: OpenAI's API does so, and whoever misspells `temperature`, or
asks for what only another server can do, should hear of it. Only messages and tools may have further fields: they
go to the model's chat template, and each template knows some of its own.

A server that a profile's `command` starts may know more. It gets what is refused or unknown here as it is, unless
draftd itself stands in the way (`passed_on=False`). When you build what is refused now, change its row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from draftd.profile_tables import RequestDefaults, Stop
from draftd.protocol import (
    COUNT_FIELD,
    GRAMMARS_FIELD,
    MAX_DRAFT_TOKENS,
    MAX_TOP_LOGPROBS,
    RETURN_DRAFTERS_FIELD,
)
from draftd.web.dialects.field_table import Count, Object, Table, honoured, idle, refused, translated

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
# Arguments of apply_chat_template that are not the template's own: they change what it returns, which ends
# mlx_lm.server's generation thread, or the template itself.
_TEMPLATE_ARGUMENTS = frozenset({
    "conversation", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "sanitize_control_tokens", "messages", "conversations",
})  # fmt: skip


def _as_in_defaults(name: str) -> Any:
    """The check of a field that profiles may have defaults for."""
    known = RequestDefaults.model_fields[name]
    return Annotated[(known.annotation, *known.metadata)] if known.metadata else known.annotation


def _for_the_template(value: dict[str, Any]) -> dict[str, Any]:
    if taken := _TEMPLATE_ARGUMENTS & value.keys():
        raise ValueError(f"must not hold {', '.join(sorted(taken))}")
    return value


class TextGrammar(TypedDict):
    """The form of a text."""

    syntax: Literal["lark", "regex"]
    definition: str


def _by_token_ids(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if not _TOKEN_ID.fullmatch(name):
            raise ValueError(f"must name tokens by their ids, not by {name[:20]!r}")
    return value


_Tokens = Annotated[int, Field(ge=0, le=100_000)]
_Bias = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], AfterValidator(_by_token_ids)]
_LOGPROBS = "true or false; in `/v1/completions` also how many alternatives"
_WEIGHTS = "the profile chooses the weights"

_COMMON = (
    honoured("model", "a profile or one of its aliases", Any),
    honoured("stream", "", bool),
    honoured("stream_options", "", Object),
    honoured("temperature", "", _as_in_defaults("temperature")),
    honoured("top_p", "", _as_in_defaults("top_p")),
    translated("top_k", "-1 is 0, no limit", Annotated[int, Field(ge=-1)]),
    honoured("min_p", "", _as_in_defaults("min_p")),
    honoured("seed", "any whole number", int),
    honoured("stop", "up to 16 strings of 1 to 256 characters", Stop),
    translated("max_tokens", "cut to what is left of the context", Count),
    translated("max_completion_tokens", "the newer name; the smaller of the two counts", Count),
    honoured("presence_penalty", "", _as_in_defaults("presence_penalty")),
    honoured("frequency_penalty", "", _as_in_defaults("frequency_penalty")),
    honoured("repetition_penalty", "", _as_in_defaults("repetition_penalty")),
    *(
        honoured(f"{name}_context_size", "how many tokens back the penalty looks; 0: no penalty", _Tokens)
        for name in ("presence", "frequency", "repetition")
    ),
    honoured("xtc_probability", "", _as_in_defaults("xtc_probability")),
    honoured("xtc_threshold", "", _as_in_defaults("xtc_threshold")),
    honoured("logit_bias", "-100 to 100 for each token, by its number", _Bias),
    honoured("top_logprobs", "needs `logprobs`", Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]),
    honoured(
        "num_draft_tokens",
        'draft length of this request, or `"auto"`',
        Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)] | Literal["auto"],
    ),
    honoured("drafters", "what may draft for this request", list[Literal["lookup", "model"]]),
    honoured(COUNT_FIELD, "true: the answer is empty, and its usage has the prompt's tokens", bool),
    idle("user", "draftd keeps no accounts", str),
    idle("cache_prompt", "the prompt cache is always used", bool),
    refused("n", "draftd gives one answer to a request", 1, passed_on=False),
    refused("adapters", _WEIGHTS, passed_on=False),
    refused("draft_model", _WEIGHTS, passed_on=False),
)

_CHAT = (
    translated("messages", "see the rows below", Any),
    honoured("logprobs", _LOGPROBS, bool),
    honoured("tools", "see the rows below", list[Object]),
    honoured(
        "tool_choice",
        "`auto`, `none`, `required`, a function, or `allowed_tools`; a call that is asked for is enforced",
        Literal["auto", "none", "required"] | Object,
    ),
    honoured(
        GRAMMARS_FIELD,
        "grammars for functions that take one text, by their names: `syntax` (`lark` or `regex`) and `definition`; "
        "enforced by draftd's engine",
        dict[str, TextGrammar],
    ),
    honoured(
        RETURN_DRAFTERS_FIELD,
        "true: each choice has `drafters`, who drafted which piece of the text; not for a `command`",
        bool,
    ),
    honoured("parallel_tool_calls", "false ends the answer after its first call", bool),
    honoured(
        "chat_template_kwargs",
        "arguments of the model's own template",
        Annotated[Object, AfterValidator(_for_the_template)],
    ),
    idle("metadata", "draftd stores no answers", Object),
    idle("prediction", "a hint that could only save time", Object),
    idle("prompt_cache_key", "there is one prompt cache, and it is always used", str),
    idle("prompt_cache_options", "there is one prompt cache, and it is always used", Object),
    idle("prompt_cache_retention", "there is one prompt cache, and it is always used", str),
    idle("safety_identifier", "draftd keeps no accounts", str),
    honoured("response_format", "JSON of any form, or by a schema, which is enforced", Object),
    translated(
        "reasoning_effort",
        "as the model's chat template takes it; refused where that knows none",
        Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    ),
    refused("verbosity", "no model here has been taught it", "medium"),
    refused("functions", "`tools` has taken its place", [], passed_on=False),
    refused("function_call", "`tool_choice` has taken its place", "none", "auto", passed_on=False),
    refused("store", "draftd stores no answers", False),
    refused("service_tier", "all requests are served alike", "auto", "default"),
    refused("web_search_options", "a model here has no way to the web"),
    refused("moderation", "draftd judges no texts", passed_on=False),
    refused("modalities", "answers are texts", ["text"], passed_on=False),
    refused("audio", "answers are texts", passed_on=False),
    refused("role_mapping", "prompts are made by the model's chat template"),
)
_TEXT = (
    honoured("logprobs", _LOGPROBS, Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | bool),
    translated("prompt", "one text, alone or in a list", Any),
    refused("suffix", "put the model's own fill-in-the-middle tokens into the prompt", ""),
    refused("echo", "the answer is what follows the prompt", False),
    refused("best_of", "draftd gives one answer to a request", 1),
)
CHAT = Table((*_COMMON, *_CHAT), elsewhere={row.name: "/v1/completions" for row in _TEXT})
TEXT = Table((*_COMMON, *_TEXT), elsewhere={row.name: "/v1/chat/completions" for row in _CHAT})
STREAM_OPTIONS = Table(
    (
        honoured("include_usage", "", bool),
        refused("include_obfuscation", "events are sent as they are", False),
    )
)
RESPONSE_FORMAT = Table(
    (
        honoured("type", "", Literal["text", "json_object", "json_schema"]),
        honoured("json_schema", "", Object),
        honoured("schema", "for `json_object`, as llama.cpp takes it", Object),
    )
)
JSON_SCHEMA = Table(
    (
        honoured("schema", "", Object),
        idle("strict", "it is enforced in any case", bool),
        idle("name", "the model is told no name", str),
        idle("description", "the model is not told it: say it in the prompt", str),
    )
)
MESSAGE = Table(
    (
        translated(
            "role", "`developer` is `system`; refused where the model's chat template does not name it", str
        ),
        translated("content", "text, or parts of it; the profile's system prompt joins in", Any),
        translated("refusal", "joins the content", str),
        honoured("name", "goes to the chat template", str),
        translated("tool_calls", "calls of functions; their arguments as JSON", Any),
        honoured("tool_call_id", "goes to the chat template", str),
        refused("function_call", "`tool_calls` has taken its place"),
        refused("audio", "draftd stores no answers"),
    ),
    open=True,
)
TOOL = Table(
    (
        refused("type", "tools of other kinds are not built yet", "function"),
        honoured("function", "", Object),
        refused("custom", "tools of other kinds are not built yet"),
    ),
    open=True,
)
FUNCTION = Table(
    (
        honoured("name", "", Annotated[str, Field(min_length=1)]),
        honoured("description", "goes to the chat template", str),
        honoured("parameters", "goes to the chat template", Object),
        honoured("strict", "arguments by the schema in `parameters`, which is enforced", bool),
    ),
    open=True,
)
# Where the fields of an object within a body stand; `[]` is for each of a list.
INNER: Mapping[str, Table] = {
    "stream_options.": STREAM_OPTIONS,
    "response_format.": RESPONSE_FORMAT,
    "response_format.json_schema.": JSON_SCHEMA,
    "messages[].": MESSAGE,
    "tools[].": TOOL,
    "tools[].function.": FUNCTION,
}
