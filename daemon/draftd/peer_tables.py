"""`[[peers]]` in the settings file: other machines that this daemon sends requests to."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from draftd.files import absolute

MAX_PEERS = 64


def _origin(url: str) -> str:
    """`scheme://host:port`, without the `/v1` that other clients want at the end."""
    wrong = "a peer is named like 'http://mini.local:8080' or 'https://studio.example'"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not _is_host(host):
        raise ValueError(wrong)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the key of a peer belongs in api_key, not in its url")
    if parts.path.strip("/") not in {"", "v1"} or parts.query or parts.fragment:
        raise ValueError("a peer is another server as a whole: its url has no path")
    return f"{parts.scheme}://{_bracketed(host)}:{port or (443 if parts.scheme == 'https' else 80)}"


def _is_host(host: str) -> bool:
    return bool(host) and host.isascii() and host.isprintable() and not set(host) & set(' "\\<>^`{|}')


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def usable_key(key: SecretStr) -> SecretStr:
    """The same key, without space around it. Raises ValueError if it could not stand in a header."""
    text = key.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("a key is a string of printable ASCII characters, and not empty")
    return SecretStr(text)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class PeerTable(BaseModel):
    """One `[[peers]]` table. `url` is kept as `scheme://host:port`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_origin)] = Field(
        description="another draftd, or any server that speaks OpenAI's protocol: `http://mini.local:8080`"
    )
    api_key: Annotated[SecretStr, AfterValidator(usable_key)] | None = Field(
        None, description="bearer token that it asks for; required for a peer on another machine"
    )
    weight: float = Field(
        1.0, gt=0, le=1000, description="how much it is preferred: with 2 it may take twice as long"
    )
    ca_file: Annotated[Path, AfterValidator(absolute)] | None = Field(
        None, description="certificates (PEM) to verify an `https` peer with, in place of the system's"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.api_key is None and not self.is_here:
            raise ValueError(
                "a peer on another machine needs an api_key: the other draftd has it as api_key too, and whoever"
                " reaches that address without one could use the machine as well"
            )
        if self.ca_file is not None and not self.is_encrypted:
            raise ValueError("ca_file is for an https url: over http nothing is verified")
        return self

    @property
    def name(self) -> str:
        """What it is called everywhere: `host:port`."""
        return self.url.partition("://")[2]

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody between here and there can read along."""
        return self.url.startswith("https:")


def distinct(peers: tuple[PeerTable, ...]) -> tuple[PeerTable, ...]:
    """The same peers. Raises ValueError if one is named twice, or if there are too many."""
    names = [peer.name for peer in peers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the peer {twice} is listed more than once")
    if len(peers) > MAX_PEERS:
        raise ValueError(f"there may be at most {MAX_PEERS} peers")
    return peers
