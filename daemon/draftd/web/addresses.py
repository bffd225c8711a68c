"""The addresses of models, and what people type for them. Pure.

A client joins a base URL and a path, and people set the base with `/v1` or without, with a slash or two at its end,
or to a whole address. A path that can only mean one address of ours is taken for it; for any other, the error names
the closest one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from draftd.web.router import Dialect, PassedKind

COMPLETIONS: Mapping[str, Dialect] = {
    "/v1/chat/completions": "chat.completions",
    "/v1/completions": "completions",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/responses": "responses",
}
# For servers that a profile's `command` starts; one that ends with a slash stands for every path below it.
PASSED_ON: Mapping[str, PassedKind] = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/audio/": "audio",
    "/v1/images/": "images",
}
MODELS = "/v1/models"
_KNOWN = (*COMPLETIONS, *PASSED_ON, MODELS)
_VERSION = "v1"
# The same endpoints as other servers name them.
_ELSEWHERE = {
    "/api/chat": "/v1/chat/completions",
    "/api/generate": "/v1/completions",
    "/api/tags": MODELS,
    "/completion": "/v1/completions",
}


def passed_kind(path: str) -> PassedKind | None:
    """The kind of the requests that are passed on from this address; None if none are."""
    first, version, kind, *rest = (*path.split("/", 3), "", "", "")
    return PASSED_ON.get(path) or PASSED_ON.get(f"{first}/{version}/{kind}/" if rest[0] else "")


def meant(path: str) -> str:
    """The address of ours that `path` stands for; any other path is returned as it is."""
    words = [word for word in path.split("/") if word]
    while words[:1] == [_VERSION]:
        del words[0]
    address = "/".join(("", _VERSION, *words))
    known = address in _KNOWN or address.startswith(f"{MODELS}/") or passed_kind(address)
    return address if known else path


def nearest(path: str) -> str | None:
    """The address that may have been meant by a path that leads nowhere; None if none comes close."""
    typed = path.rstrip("/")
    if typed in _ELSEWHERE:
        return _ELSEWHERE[typed]
    ends = [address for address in _KNOWN if typed.endswith(address.removeprefix(f"/{_VERSION}"))]
    close = difflib.get_close_matches(typed, _KNOWN, n=1)
    return max(ends, key=len, default=None) or next(iter(close), None)
