"""From the fields that a client sent to the body that another machine gets. Pure.

It is the same for all machines, so that the one that takes the request can be chosen later. A draftd checks it
again with its own profile of that name, which decides how to draft. If the profile is here too, its defaults and
its system prompt are filled in here: an answer must not depend on which machine gave it. (A system prompt that is
there already is not added a second time.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from draftd.errors import RequestError
from draftd.peers.peer_models import PeerModel
from draftd.peers.prefixes import Away, prompt_of
from draftd.profiles import Profile
from draftd.protocol import COUNT_FIELD, GRAMMARS_FIELD
from draftd.web import json_codec
from draftd.web.dialects import fields as tables
from draftd.web.request_body import (
    TABLES,
    Endpoint,
    Forward,
    checked_messages,
    encoded,
    fill_in_defaults,
    text_prompt,
    with_system_prompt,
)
from draftd.web.tools import checked_tool

# The fields of a prompt, in the order in which models read them: the prefix that two requests share begins here.
_READ = ("tools", "messages", "prompt")


def prepare_for_peers(
    body: Mapping[str, Any],
    endpoint: Endpoint,
    model: PeerModel,
    client_model: str,
    profile: Profile | None = None,
    prompt: str = "",
    *,
    translated: bool = False,
) -> tuple[Forward, Away]:
    """The request for any machine that has the model. `profile` is this machine's, and `prompt` its system prompt.
    Raises RequestError (400) with the field at fault.
    """
    fields = TABLES[endpoint].checked(body, foreign=True)
    options = tables.STREAM_OPTIONS.checked(fields.get("stream_options", {}), "stream_options.")
    if "tools" in fields:
        fields["tools"] = [checked_tool(tool, f"tools[{n}]", True) for n, tool in enumerate(fields["tools"])]
    stream, wants_usage = fields.get("stream", False), options.get("include_usage", False)
    if profile is not None:
        fill_in_defaults(fields, profile)
    if not model.own:
        _suit_others(fields, model)
    if endpoint == "chat.completions":
        made = checked_messages(fields, foreign=True, translated=translated)
        mode = profile.system_prompt_mode if profile else "off"
        fields["messages"] = with_system_prompt(made, prompt, mode)
    else:
        fields["prompt"] = text_prompt(fields, True)
    fields |= {"model": model.name, "stream": True, "stream_options": {"include_usage": True}}
    read = json_codec.dumps([fields[name] for name in _READ if name in fields])
    payload, counts_only = encoded(fields), fields.get(COUNT_FIELD, False)
    forward = Forward(payload, endpoint, client_model, stream, wants_usage, {}, counts_only)
    return forward, Away(payload, prompt_of(model.name, read), profile is None)


def _suit_others(fields: dict[str, Any], model: PeerModel) -> None:
    """Take out what only a draftd understands."""
    fields.pop(GRAMMARS_FIELD, None)  # they read the grammar in the tool's description
    if fields.pop(COUNT_FIELD, False):  # they read the prompt, and say how long it was
        fields.pop("max_completion_tokens", None)
        fields["max_tokens"] = 1
    if fields.get("num_draft_tokens") == "auto":
        del fields["num_draft_tokens"]
    if "drafters" in fields:
        text = f"'{model.name}' is served by another server, which drafts by itself"
        raise RequestError(400, text, param="drafters")
