"""Errors about a translated request name the field that its client sent, not the one that it became. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from draftd.errors import DraftdError, RequestError

# By the address: a chat's field -> the dialect's. The first that fits counts.
_MESSAGES = {
    "stop": "stop_sequences",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
}
_RESPONSES = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "messages": "input",
}
_NAMES: Mapping[str, Mapping[str, str]] = {"/v1/messages": _MESSAGES, "/v1/responses": _RESPONSES}


def in_own_names(error: DraftdError, path: str) -> DraftdError:
    """The error as the client of this address understands it."""
    if not isinstance(error, RequestError) or error.param is None or error.code == "unknown_parameter":
        return error  # a field that does not exist is named as it was sent
    for chats, own in _NAMES.get(path, {}).items():
        if error.param == chats or error.param.startswith(f"{chats}."):
            param = own + error.param.removeprefix(chats)
            said = re.sub(rf"(?<![\w.]){re.escape(error.param)}(?![\w.])", param, str(error), count=1)
            return RequestError(error.status, said, kind=error.kind, code=error.code, param=param)
    return error
