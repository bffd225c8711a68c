"""What pages of other web origins may do and read (CORS, as the Fetch standard has it). Pure.

By default they may do nothing: the guard refuses every foreign origin. A page of an origin that `allowed_origins`
names is let in like any client. Before it may send a key or JSON its browser asks: a preflight, without a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

from draftd.errors import ConfigError

# Headers of our answers that a page could not read otherwise.
EXPOSED = (
    "X-Request-Id, X-Draftd-Profile, X-Draftd-Worker, X-Draftd-Queue-Position, Retry-After, X-Should-Retry"
)
ASKED_METHOD = "Access-Control-Request-Method"
ASKED_HEADERS = "Access-Control-Request-Headers"
ASKED_NETWORK = (
    "Access-Control-Request-Private-Network"  # older Chromium asks it for a page from the internet
)
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: *, *[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[^\s/?#@,*]+")
_PORTS = {"http": ":80", "https": ":443"}  # that a browser leaves out


def is_preflight(method: str, headers: Mapping[str, str], origins: Set[str]) -> bool:
    """Whether a browser asks what a page of one of `origins` may send."""
    return method == "OPTIONS" and ASKED_METHOD in headers and headers.get("Origin") in origins


def answer_headers(method: str, headers: Mapping[str, str], origins: Set[str]) -> dict[str, str]:
    """The headers of the answer to a request with these `headers`."""
    origin = headers.get("Origin", "")
    if origin not in origins:
        return {"Vary": "Origin"}
    made = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    if not is_preflight(method, headers, origins):
        return made | {"Access-Control-Expose-Headers": EXPOSED}
    made |= {
        "Access-Control-Allow-Methods": "GET, POST",
        "Vary": f"Origin, {ASKED_METHOD}, {ASKED_HEADERS}, {ASKED_NETWORK}",
    }
    if _NAMES.fullmatch(asked := headers.get(ASKED_HEADERS, "").strip()):
        made["Access-Control-Allow-Headers"] = asked
    if headers.get(ASKED_NETWORK) == "true":
        made["Access-Control-Allow-Private-Network"] = "true"
    return made


def origin_of(text: str) -> str:
    """An origin that a person wrote, as browsers write it. Raises ConfigError for what cannot be one."""
    origin = text.lower().removesuffix("/")
    found = _ORIGIN.fullmatch(origin)
    if found is None and origin != "null":
        raise ConfigError(
            f"allowed_origins: '{text}' is not a web origin; write each as 'http://localhost:3000', without a path"
        )
    return origin.removesuffix(_PORTS.get(found["scheme"], "none")) if found else origin
