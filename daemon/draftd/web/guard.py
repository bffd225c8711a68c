"""Who may talk to the proxy: checks of Host, Origin, token and content type. Pure.

A daemon on loopback is within reach of every web page that the user opens: a page can post to 127.0.0.1, and if its
owner points the page's own host name to 127.0.0.1, it can read the answers too. So a request must name a host that
is ours, and must not come from a foreign origin.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from draftd.errors import ConfigError, RequestError
from draftd.peer_tables import is_loopback
from draftd.web import cors
from draftd.web.addresses import passed_kind

OPEN = frozenset({"/healthz", "/"})
DASHBOARD = "/dashboard/"  # files of the page at '/', which asks for the key itself
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+(?:%[\w.~-]+)?)\]|(?P<name>[\w.~-]+))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets requests in or refuses them. With an empty `api_key` no token is needed."""

    hosts: frozenset[str]
    origins: frozenset[str]
    api_key: str

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Raises RequestError: 403 for a foreign host or origin, 401 without the token, 415 for a form."""
        host = headers.get("Host", "")
        if host_name(host) not in self.hosts:
            raise RequestError(403, "the Host header does not name this daemon (see allowed_hosts)")
        origin = headers.get("Origin")
        if origin is not None and origin not in self.origins and not _same_origin(origin, host):
            raise RequestError(403, "requests from this web origin are not allowed (see allowed_origins)")
        if path in OPEN or path.startswith(DASHBOARD) or self.is_preflight(method, headers):
            return
        self._check_token(headers)
        # A form or text/plain can be posted by any page without asking the browser first.
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if method == "POST" and path.startswith("/v1/") and kind != "application/json":
            self._check_form(path, headers)

    def _check_form(self, path: str, headers: Mapping[str, str]) -> None:
        """Accept it where bodies may be of any kind, unless a browser says that another site's page sends it."""
        if passed_kind(path) is None:
            raise RequestError(415, "send the body with 'Content-Type: application/json'")
        if headers.get("Origin") is None and headers.get("Sec-Fetch-Site", "none") not in {
            "none",
            "same-origin",
        }:
            raise RequestError(403, "pages of other sites may not send this")

    def is_preflight(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a browser asks what a page of an allowed origin may send."""
        return bool(self.origins) and cors.is_preflight(method, headers, self.origins)

    def answer_headers(self, method: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of an answer that tell a browser which pages may read it."""
        return cors.answer_headers(method, headers, self.origins) if self.origins else {}

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if not self.api_key:
            return
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        own = headers.get("X-Api-Key", "")  # Anthropic's header
        given = (token if scheme.lower() == "bearer" else "", own)
        if not any(hmac.compare_digest(_bytes(one.strip()), _bytes(self.api_key)) for one in given if one):
            raise RequestError(
                401, "this daemon asks for its API key as a bearer token", code="invalid_api_key"
            )


def make_guard(host: str, allowed_hosts: tuple[str, ...], origins: tuple[str, ...], api_key: str) -> Guard:
    """The guard for an address to listen on. Raises ConfigError for an open address without a token,
    and for an allowed origin that is not one.
    """
    api_key = api_key.strip()
    if not is_loopback(host) and not api_key:
        raise ConfigError(
            f"listening on {host} lets other machines in, and no API key is set; set DRAFTD_API_KEY to a long"
            " random text, or listen on 127.0.0.1"
        )
    names = {name.lower() for name in (host, *allowed_hosts)} - {"", "0.0.0.0", "::"}
    return Guard(LOOPBACK_NAMES | names, frozenset(map(cors.origin_of, origins)), api_key)


def host_name(header: str) -> str:
    """The name in a Host header, without its port, in lower case; empty if it is anything but a name and a port."""
    found = _HOST.fullmatch(header)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        return ""
    return (found["address"] or found["name"]).lower()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # bytes of a header that are not UTF-8 arrive as surrogates


def _same_origin(origin: str, host: str) -> bool:
    return origin in {f"http://{host}", f"https://{host}"}
