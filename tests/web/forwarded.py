"""Requests as they are forwarded: what a client sends, to whom, and what the worker gets of it."""

import json
from typing import Any

from draftd.profiles import Profile
from draftd.web.request_body import Endpoint, Forward, prepare
from tests.web.given import profile

HELLO = {"role": "user", "content": "hello"}
CHAT: Endpoint = "chat.completions"
TEXT: Endpoint = "completions"
ENDPOINTS: list[Endpoint] = [CHAT, TEXT]
PLAIN = profile()
DRAFTING = profile(draft_model="org/draft")
FOREIGN = profile(command=["serve", "{port}"])


def forward(
    body: dict[str, Any], endpoint: Endpoint = CHAT, to: Profile = PLAIN, prompt: str = ""
) -> Forward:
    """A request that is complete except for `body`."""
    least = {"messages": [HELLO]} if endpoint == CHAT else {"prompt": "hello"}
    return prepare({**least, **body}, endpoint, to, prompt, "default_model", "asked-for")


def sent(
    body: dict[str, Any], endpoint: Endpoint = CHAT, to: Profile = PLAIN, prompt: str = ""
) -> dict[str, Any]:
    """What the worker gets."""
    fields: dict[str, Any] = json.loads(forward(body, endpoint, to, prompt).payload)
    return fields


DEFAULTS = {"temperature": 0.5, "max_tokens": 100, "stop": ["END"], "chat_template_kwargs": {"a": 1}}
