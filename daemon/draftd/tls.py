"""The certificate that draftd serves https with: what it is for, whether it can be used, and who may trust it.

A certificate is tried out before it is served, by a handshake of which both ends are here: so whatever clients
would stumble over is found at the start. Commands on this machine trust exactly the certificate that the daemon
says it has, whoever signed it and whatever name it is for.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draftd.errors import ConfigError
from draftd.files import open_file, read_text

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n?", re.ASCII
)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_LOCKED = re.compile(r"BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")
_AT_ANY_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name
_HOSTS = frozenset(
    {"DNS", "IP Address"}
)  # the kinds of names that are a host's; others are a person's or a user's
_FLIGHTS = 4  # messages from each end in a handshake, at most


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in `file`; `pem` is its text alone. `names` are the host names and addresses that it is for,
    `expires` is in epoch seconds, and nobody but itself has signed one that is `self_signed`.
    """

    file: Path
    pem: str
    names: tuple[str, ...]
    expires: float
    self_signed: bool

    @property
    def to_trust(self) -> str:
        """The file that clients have to be told to trust; "" if they trust whoever signed the certificate."""
        return str(self.file) if self.self_signed else ""

    def host_for_clients(self, host: str) -> str:
        """The name by which clients on this machine can verify it; `host` if it is for none that they could use."""
        usable = [name for name in self.names if not name.startswith("*")]
        return next((name for name in (host, "localhost", *usable) if name in usable), host)


def served(cert: Path, key: Path | None) -> tuple[ssl.SSLContext, Certificate]:
    """What is needed to serve https; without a `key` it is in the file of the certificate.

    Raises ConfigError that says in one sentence what is wrong with which of the files.
    """
    found = _CERTIFICATE.search(_text(cert))
    if found is None:
        raise ConfigError(f"tls_cert: {cert}: there is no certificate in it (in the form PEM)")
    named, holder = ("tls_cert", cert) if key is None else ("tls_key", key)
    text = _text(holder, named)
    if not _KEY.search(text):
        missing = "; tls_key names a file that has it" if key is None else " (in the form PEM)"
        raise ConfigError(f"{named}: {holder}: there is no private key in it{missing}")
    if _LOCKED.search(text):
        raise ConfigError(
            f"{named}: {holder}: the key is locked with a password, and nobody is there to type it when draftd"
            " starts: 'openssl pkey' writes it without one"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
        return context, _certificate(cert, found[0], _tried_out(context, found[0]))
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"tls_cert: {cert}: {error.verify_message}") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{named}: {holder}: the key is not that of the certificate {cert}") from error
        raise ConfigError(f"tls_cert: {cert}: it cannot be used: {error.reason or 'broken'}") from error


def exposed(key: Path) -> str:
    """Who else on this machine can read the file of a private key, as a sentence; "" if nobody can.

    A group may be meant to read it where the file is not our own: many systems have one for keys.
    """
    try:
        status = key.stat()
    except OSError:
        return ""
    told = f"{key} has the private key, and"
    if status.st_mode & stat.S_IROTH:
        return f"{told} every user of this machine can read it"
    if status.st_mode & stat.S_IRGRP and status.st_uid == os.geteuid():
        return f"{told} its group can read it"
    return ""


def verifying(file: Path) -> ssl.SSLContext:
    """A client's context that trusts the certificates in a file, and who is signed by them. Raises ConfigError."""
    try:
        # OpenSSL would wait for whoever writes into a pipe.
        os.close(open_file(file, os.O_RDONLY, links=True))
        context = ssl.create_default_context(cafile=str(file))
        # A certificate in the file needs none of its signer there; Python does so by itself from 3.13 on.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
    except OSError as error:  # ssl's own errors are of this kind, and have the number of another error
        reason = "there is no certificate in it (in the form PEM)"
        if not isinstance(error, ssl.SSLError):
            reason = error.strerror or str(error)
        raise ConfigError(f"the certificates in {file} cannot be read: {reason}") from error


def trusting(pem: str, *, at_any_time: bool = True) -> ssl.SSLContext:
    """A client's context that trusts this one certificate, under any name, and after it has expired too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | (_AT_ANY_TIME if at_any_time else 0)
    return context


def _text(path: Path, setting: str = "tls_cert") -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text, so not in the form PEM"
        raise ConfigError(f"{setting}: {path} cannot be read: {reason}") from error


def _tried_out(context: ssl.SSLContext, pem: str) -> dict[str, Any]:
    """What a client sees of the certificate. Raises ssl.SSLError for what it would not accept."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(pem, at_any_time=False).wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_FLIGHTS):
        for end in (client, server):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return client.getpeercert() or {}


def _host(kind: str, name: str) -> str:
    """A name of a certificate as clients write it: OpenSSL writes addresses of IPv6 in full."""
    return name.lower() if kind == "DNS" else str(ipaddress.ip_address(name))


def _certificate(file: Path, pem: str, told: dict[str, Any]) -> Certificate:
    return Certificate(
        file=file,
        pem=pem,
        names=tuple(_host(kind, name) for kind, name in told.get("subjectAltName", ()) if kind in _HOSTS),
        expires=ssl.cert_time_to_seconds(told["notAfter"]),
        self_signed=told["issuer"] == told["subject"],
    )
