"""Certificates to serve https with: each fault is told at the start, in a sentence that names the file."""

from __future__ import annotations

import os
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from draftd.errors import ConfigError
from draftd.settings import load_settings
from draftd.tls import exposed, served, verifying
from tests.certificates import Made, dated, self_signed, signed
from tests.forked import run

NAMES = ("DNS:mini.local", "DNS:*.ts.net", "IP:10.0.0.2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return self_signed(tmp_path_factory.mktemp("tls"), *NAMES)


def refusal(cert: Path, key: Path | None) -> str:
    with pytest.raises(ConfigError) as caught:
        served(cert, key)
    assert not caught.value.problems
    return str(caught.value)


def test_what_a_certificate_is_for_and_whom_clients_must_trust(made: Made, tmp_path: Path) -> None:
    _, own = served(made.cert, made.key)
    assert own.names == ("mini.local", "*.ts.net", "10.0.0.2")
    assert own.to_trust == str(made.cert)
    assert own.host_for_clients("10.0.0.2") == "10.0.0.2"
    assert own.host_for_clients("127.0.0.1") == "mini.local"
    both = tmp_path / "both.pem"
    both.write_text(made.cert.read_text() + made.key.read_text())
    assert served(both, None)[1].pem == own.pem
    by_another = signed(tmp_path, "DNS:*.ts.net", "DNS:localhost")
    _, other = served(by_another.cert, by_another.key)
    assert (other.to_trust, other.host_for_clients("127.0.0.1")) == ("", "localhost")
    assert other.host_for_clients("::1") == "localhost"


def test_names_are_those_of_hosts_as_clients_write_them(tmp_path: Path) -> None:
    mixed = self_signed(
        tmp_path, "URI:spiffe://mine/draftd", "email:me@mini.local", "DNS:Mini.local", "IP:fd00::5"
    )
    _, certificate = served(mixed.cert, mixed.key)
    assert certificate.names == ("mini.local", "fd00::5")


def test_a_certificate_is_trusted_by_itself_or_by_its_signer_and_by_no_other(tmp_path: Path) -> None:
    leaf = signed(tmp_path, "DNS:localhost")
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other", "DNS:localhost")
    assert _is_trusted(leaf, leaf.cert)
    assert _is_trusted(leaf, leaf.signer)
    assert not _is_trusted(leaf, other.cert)


def _is_trusted(shown: Made, trusted: Path) -> bool:
    """Whether a client that trusts the certificates in a file takes a server's."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = verifying(trusted).wrap_bio(to_client, to_server, server_hostname="localhost")
    server = served(shown.cert, shown.key)[0].wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (client, server) * 4:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError:
        return False
    return client.getpeercert() is not None


@pytest.mark.fault(73)
def test_a_pipe_in_the_place_of_certificates_to_trust_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be read: it is a named pipe, not a file"):
        verifying(pipe)


@pytest.mark.fault(196)
def test_each_fault_of_the_files_is_told_in_a_sentence(made: Made, tmp_path: Path) -> None:
    cert, key = made.cert, made.key
    absent, folder, broken, binary = (tmp_path / name for name in ("absent", "folder", "broken", "binary"))
    folder.mkdir()
    broken.write_text(cert.read_text().replace("MII", "MIX", 1))
    binary.write_bytes(b"\xff\xfe\x00")
    other = self_signed(tmp_path, "DNS:other")
    assert refusal(absent, key) == f"tls_cert: {absent} cannot be read: No such file or directory"
    assert refusal(cert, folder) == f"tls_key: {folder} cannot be read: Is a directory"
    assert refusal(binary, key) == f"tls_cert: {binary} cannot be read: it is no text, so not in the form PEM"
    assert refusal(key, cert) == f"tls_cert: {key}: there is no certificate in it (in the form PEM)"
    assert refusal(cert, cert) == f"tls_key: {cert}: there is no private key in it (in the form PEM)"
    assert refusal(cert, None).endswith("there is no private key in it; tls_key names a file that has it")
    assert refusal(cert, other.key) == f"tls_key: {other.key}: the key is not that of the certificate {cert}"
    assert refusal(broken, key).startswith(f"tls_cert: {broken}: it cannot be used")
    locked = tmp_path / "locked"
    words = f"pkcs8 -topk8 -in {key} -out {locked} -passout pass:word"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    assert refusal(cert, locked).startswith(f"tls_key: {locked}: the key is locked with a password")


@pytest.mark.fault(196)
@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("20200101000000Z", "20200201000000Z", "certificate has expired"),
        ("20900101000000Z", "20910101000000Z", "certificate is not yet valid"),
    ],
)
def test_one_that_is_not_valid_today_is_refused(tmp_path: Path, first: str, last: str, words: str) -> None:
    old = dated(tmp_path, first, last)
    assert refusal(old.cert, old.key) == f"tls_cert: {old.cert}: {words}"


def test_a_key_that_others_can_read_is_told(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    key.write_text(made.key.read_text())
    for mode, words in (
        (0o600, ""),
        (0o640, "its group can read it"),
        (0o604, "every user of this machine can"),
    ):
        key.chmod(mode)
        assert words in exposed(key)
        assert bool(exposed(key)) is bool(words)
    key.chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # another's, for a group that we are in
    assert exposed(key) == ""


def test_a_key_needs_a_certificate(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    monkeypatch.setenv("DRAFTD_TLS_KEY", str(made.key))
    with pytest.raises(ConfigError, match="DRAFTD_TLS_KEY: tls_key: it is the key of a certificate"):
        load_settings()


@pytest.mark.fault(196)
@pytest.mark.parametrize("verb", [["check"], ["up", "--plain"]])
def test_the_commands_end_with_2_and_name_the_line_of_the_settings(
    tmp_path: Path, made: Made, verb: list[str]
) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "a.toml").write_text('command = ["server", "{port}"]\nmodel = "x"\n')
    settings = tmp_path / "draftd.toml"
    settings.write_text(f'port = 1\nprofiles = "{profiles}"\ntls_cert = "{made.cert}"\n')
    env = os.environ | {"DRAFTD_CONFIG": str(settings), "DRAFTD_STATE_DIR": str(tmp_path / "state")}
    done = run(*verb, env=env)
    assert done.returncode == 2
    expected = f"{settings}:3: tls_cert: {made.cert}: there is no private key in it; tls_key names a file"
    assert expected in " ".join(done.stderr.split())
