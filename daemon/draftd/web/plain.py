"""A request for a completion in the form that nearly all have, read at a glance. Pure.

Only what leaves no doubt is read here: HTTP/1.1 with each header once, in ASCII and on one line, a body with a
length, and nothing that changes how either is read. Whatever is different is aiohttp's to read, or to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_HEAD = 8192  # bytes
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_HEAD = re.compile(rb"POST (/[a-z0-9/]++) HTTP/1\.1\r\n((?:" + _NAME + rb":[ -~]*+\r\n)++)\r\n")
_FIELD = re.compile(r"([^:]++): *+([^\r]*+)\r\n")
_LENGTH = re.compile(r"[0-9]{1,12}")
_ODD = frozenset({"Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade", "Trailer", "Origin"})


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """The head of a request: the names of `headers` are in title case; `size` and `length` are the bytes of the
    head and of the body.
    """

    path: str
    headers: Mapping[str, str]
    size: int
    length: int


def read(data: bytes | bytearray) -> PlainRequest | None:
    """The request that `data` begins with; None unless its head is all there and plain."""
    head = _HEAD.match(data)
    if head is None or head.end() > MAX_HEAD:
        return None
    fields = _FIELD.findall(head[2].decode("ascii"))
    headers = {name.title(): value.rstrip(" ") for name, value in fields}
    length = headers.get("Content-Length", "")
    plain = len(headers) == len(fields) and headers.keys().isdisjoint(_ODD) and _LENGTH.fullmatch(length)
    if not plain or headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    return PlainRequest(head[1].decode("ascii"), headers, head.end(), int(length))
