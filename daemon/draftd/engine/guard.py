"""Refuses what others send to a worker's own port, past the daemon and its checks.

Programs on this machine must know the secret of this start, which the daemon alone knows: see `channel`. Otherwise
they could ask without the daemon's key, jump its queue, and end the worker by what the daemon would refuse.

An engine that was started by hand has no secret, and still refuses web pages. Every page that the user opens can
post text to 127.0.0.1 without being asked by the browser, and mlx_lm.server reads any body as JSON: a page could
drain the battery. A page whose host name points to 127.0.0.1 could read the answers as well. Who asks must name our
host, send no origin, and post JSON.
"""

import functools
import hmac
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from draftd.engine import channel
from draftd.protocol import SECRET_HEADER

OUR_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
ANY_HOST = frozenset({"0.0.0.0", "::", ""})
NOT_FOR_YOU = "This port is the draftd daemon's own. Send your requests to the daemon's address."
METHODS = ("do_GET", "do_POST", "do_OPTIONS")


def refusal(method: str, headers: Mapping[str, str], host: str, origins: Sequence[str]) -> HTTPStatus | None:
    """Return the status to refuse a request with, None to let it in. `host` and `origins` are the flags' values.

    A server that listens on all addresses was opened on purpose, and has names that we do not know.
    """
    name = headers.get("Host", host).lower()
    name = name if name.endswith("]") else name.rpartition(":")[0] or name
    if host not in ANY_HOST and name not in OUR_NAMES | {host.lower()}:
        return HTTPStatus.FORBIDDEN
    origin = headers.get("Origin")
    if origin is not None and origin not in origins and "*" not in origins:
        return HTTPStatus.FORBIDDEN
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if method == "do_POST" and kind != "application/json":
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return None


def refuse_strangers(handler: Any) -> None:
    """Wrap `parse_request` of the class `handler` (mlx_lm's APIHandler), if there is a secret.

    Whatever the method and the path, nothing but the head of a request is read of one that does not know it.
    """
    if secret := channel.secret():
        handler.parse_request = _knowing(secret, handler.parse_request)


def _knowing(secret: str, parse_request: Callable[[Any], bool]) -> Callable[[Any], bool]:
    @functools.wraps(parse_request)
    def parse_and_compare(self: Any) -> bool:
        if not parse_request(self):
            return False
        told = self.headers.get(SECRET_HEADER, "")
        if hmac.compare_digest(told.encode(errors="replace"), secret.encode()):
            return True
        self.send_error(HTTPStatus.FORBIDDEN, explain=NOT_FOR_YOU)
        return False

    return parse_and_compare


def refuse_web_pages(handler: Any) -> None:
    """Wrap the methods of the class `handler` (mlx_lm's APIHandler), to refuse before they run."""
    for method in METHODS:
        setattr(handler, method, _refusing(method, getattr(handler, method)))


def _refusing(method: str, inner: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(inner)
    def refusing(self: Any) -> None:
        flags = self.response_generator.cli_args
        status = refusal(method, self.headers, flags.host, flags.allowed_origins)
        if status is None:
            inner(self)
        else:
            self.send_error(status)

    return refusing
