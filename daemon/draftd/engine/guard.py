"""Refuses what a web page could send to a worker's own port, past the daemon and its checks.

Every page that the user opens can post text to 127.0.0.1 without being asked by the browser, and mlx_lm.server
reads any body as JSON: a page could make it load other weights, fetch an image or drain the battery. A page whose
host name points to 127.0.0.1 could read the answers as well. The daemon names our host, sends no origin, and
posts JSON; everybody else must do so too.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

OUR_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
ANY_HOST = frozenset({"0.0.0.0", "::", ""})
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
