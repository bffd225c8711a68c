"""files: only regular files are waited for, no link is written through, and our files are ours alone."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from draftd.errors import ConfigError
from draftd.files import (
    check_private_folder,
    make_private,
    make_private_folder,
    open_file,
    read_text,
    write_private,
)


@contextmanager
def in_place_of_a_file(kind: str, path: Path) -> Iterator[None]:
    """Something that is not a regular file: opened as one, a pipe would block until somebody writes."""
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(path.parent)  # the whole path may be longer than a socket's name may be
            bound.bind(path.name)
            yield
        return
    yield


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.fault(73)
@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a socket"])
def test_what_is_no_file_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with in_place_of_a_file(kind, tmp_path / "x"), pytest.raises(OSError, match="not a file") as caught:
        read_text(tmp_path / "x")
    assert caught.value.strerror == f"it is {kind}, not a file"


def test_a_folder_and_nothing_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "x")


@pytest.mark.parametrize(
    "raw",
    [b"one\ntwo\n", b"\xef\xbb\xbfone\ntwo\n", b"\xef\xbb\xbfone\r\ntwo\r\n"],
    ids=["plain", "mark", "CRLF"],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x").write_bytes(raw)
    assert read_text(tmp_path / "x") == "one\ntwo\n"


@pytest.mark.fault(72)
def test_a_link_is_followed_only_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    (tmp_path / "link").symlink_to("x")
    assert read_text(tmp_path / "link") == "text"
    with pytest.raises(OSError, match="symbolic link"):
        read_text(tmp_path / "link", links=False)
    (tmp_path / "new").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic link"):
        open_file(tmp_path / "new", os.O_RDWR | os.O_CREAT, links=False)
    assert not (tmp_path / "victim").exists()


@pytest.mark.fault(72)
def test_a_file_is_written_for_us_alone_and_replaces_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    for name in ("x", "x.new"):
        (tmp_path / name).symlink_to("victim")
    write_private(tmp_path / "x", "text")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "x").is_symlink()
    assert ((tmp_path / "x").read_text(), mode(tmp_path / "x")) == ("text", 0o600)
    assert not (tmp_path / "x.new").exists()


@pytest.mark.fault(72)
def test_what_others_may_read_is_taken_from_them(tmp_path: Path) -> None:
    folder, file = tmp_path / "state", tmp_path / "state" / "x"
    folder.mkdir(mode=0o755)
    file.touch(mode=0o644)
    make_private_folder(folder)
    make_private(file)
    assert (mode(folder), mode(file)) == (0o700, 0o600)
    (folder / "link").symlink_to("/etc/passwd")
    before = mode(Path("/etc/passwd"))
    make_private(folder / "link")
    assert mode(Path("/etc/passwd")) == before


@pytest.mark.fault(72)
@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_where_others_may_write_is_refused_with_what_to_do(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(bits)
    for look in (check_private_folder, make_private_folder):
        with pytest.raises(ConfigError, match="others can write in the state folder") as caught:
            look(folder)
        assert f"chmod 700 {folder}" in str(caught.value)
    assert mode(folder) == bits


@pytest.mark.fault(72)
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        check_private_folder(tmp_path)
