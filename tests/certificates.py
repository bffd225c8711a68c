"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_EC = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# Only 'openssl ca' takes the dates themselves.
_AUTHORITY = """\
[ca]
default_ca = own
[own]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Made:
    """A certificate and its key. `signer` is the certificate of who has signed it."""

    cert: Path
    key: Path
    signer: Path


def self_signed(folder: Path, *names: str) -> Made:
    """One for these names (`DNS:mini.local`, `IP:127.0.0.1`)."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    alternative = ("-addext", f"subjectAltName={','.join(names)}")
    _openssl(folder, f"req -x509 {_EC} -days 2 -subj /CN=test", *alternative, "-keyout", key, "-out", cert)
    return Made(cert, key, cert)


def signed(folder: Path, *names: str) -> Made:
    """The same by an authority of its own."""
    authority = self_signed(folder, "DNS:nobody")
    signer, signer_key = authority.cert.rename(folder / "ca.pem"), authority.key.rename(folder / "ca-key.pem")
    cert, key, request, extra = (folder / name for name in ("cert.pem", "key.pem", "request", "extra"))
    extra.write_text(f"subjectAltName={','.join(names)}\nbasicConstraints=CA:FALSE\n")
    _openssl(folder, f"req -new {_EC} -subj /CN=leaf", "-keyout", key, "-out", request)
    by = ("-CA", signer, "-CAkey", signer_key, "-CAcreateserial", "-extfile", extra)
    _openssl(folder, "x509 -req -days 2", "-in", request, *by, "-out", cert)
    return Made(cert, key, signer)


def dated(folder: Path, first: str, last: str) -> Made:
    """One that is valid between two dates (`20200131000000Z`)."""
    cert, key, request = folder / "cert.pem", folder / "key.pem", folder / "request"
    (folder / "conf").write_text(_AUTHORITY)
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    _openssl(folder, f"req -new {_EC} -subj /CN=test", "-keyout", key, "-out", request)
    dates = ("-startdate", first, "-enddate", last)
    files = ("-keyfile", key, "-in", request, "-out", cert)
    _openssl(folder, "ca -batch -notext -config conf -selfsign", *dates, *files)
    return Made(cert, key, cert)


def _openssl(folder: Path, words: str, *more: str | Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    command = ["openssl", *words.split(), *map(str, more)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
