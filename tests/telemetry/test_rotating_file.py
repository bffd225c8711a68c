"""RotatedFile: which bytes are in which file, and what an error leaves behind."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from draftd.telemetry.rotating_file import RotatedFile, RotatedStream


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.parent.iterdir())}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logs" / "fast.log"


def test_rotation_keeps_the_newest_and_whole_lines(path: Path) -> None:
    file = RotatedFile(path, max_bytes=8, backups=2)
    file.write([b"aaa\n", b"bbb\n", b"ccc\n"])
    assert contents(path) == {"fast.log": b"ccc\n", "fast.log.1": b"aaa\nbbb\n"}
    for letter in b"defg":
        file.write([bytes([letter] * 3) + b"\n"])
    file.close()
    assert contents(path) == {"fast.log": b"ggg\n", "fast.log.1": b"eee\nfff\n", "fast.log.2": b"ccc\nddd\n"}


def test_a_line_longer_than_a_file_has_its_own(path: Path) -> None:
    file = RotatedFile(path, max_bytes=4, backups=3)
    file.write([b"aaaaaaaa\n", b"b\n", b"cccccccc\n"])
    file.close()
    assert contents(path) == {"fast.log": b"cccccccc\n", "fast.log.1": b"b\n", "fast.log.2": b"aaaaaaaa\n"}


def test_no_backups_means_one_file(path: Path) -> None:
    file = RotatedFile(path, max_bytes=4, backups=0)
    file.write([b"aaa\n", b"bbb\n"])
    file.close()
    assert contents(path) == {"fast.log": b"bbb\n"}


def test_only_the_owner_may_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old\n")
    path.chmod(0o644)
    file = RotatedFile(path, max_bytes=5, backups=1)
    file.write([b"new\n"])
    file.close()
    assert contents(path) == {"fast.log": b"new\n", "fast.log.1": b"old\n"}
    assert [stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()] == [0o600, 0o600]


def test_the_folder_is_the_owners(path: Path) -> None:
    file = RotatedFile(path, max_bytes=8, backups=1)
    file.write([b"a\n"])
    file.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.fault(55)
def test_a_file_that_was_swept_away_or_replaced_is_begun_again(path: Path) -> None:
    file = RotatedFile(path, max_bytes=100, backups=1)
    file.write([b"one\n"])
    shutil.rmtree(path.parent)
    file.write([b"two\n"])
    assert contents(path) == {"fast.log": b"two\n"}
    path.rename(path.with_suffix(".old"))  # as logrotate does
    file.write([b"three\n"])
    path.unlink()
    path.write_bytes(b"four\n")
    file.write([b"five\n"])
    file.close()
    assert contents(path) == {"fast.log": b"four\nfive\n", "fast.old": b"two\n"}


@pytest.mark.fault(72)
def test_no_link_and_no_pipe_is_written_to(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(path.with_name("victim"))
    file = RotatedFile(path, max_bytes=100, backups=1)
    with pytest.raises(OSError, match="symbolic link"):
        file.write([b"a\n"])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="named pipe"):
        file.write([b"a\n"])
    path.unlink()
    file.write([b"b\n"])
    file.close()
    assert contents(path) == {"fast.log": b"b\n"}


def test_the_users_own_log_may_be_a_link(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(path.with_name("elsewhere"))
    stream = RotatedStream(path)
    stream.write("a\n")
    stream.close()
    assert path.with_name("elsewhere").read_text() == "a\n"


def test_a_torn_line_is_ended_before_the_next(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whole\nhal")
    file = RotatedFile(path, max_bytes=100, backups=1)
    file.write([b"next\n"])
    file.close()
    assert path.read_bytes() == b"whole\nhal\nnext\n"


def test_short_writes_are_continued_and_errors_close(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [5]

    def full_after_five(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, data[: min(2, room[0])])
        room[0] -= written
        return written

    file = RotatedFile(path, max_bytes=100, backups=1)
    monkeypatch.setattr(os, "write", full_after_five)
    with pytest.raises(OSError, match="No space"):
        file.write([b"abc\n", b"def\n"])
    assert path.read_bytes() == b"abc\nd"
    open_now = os.open(os.devnull, os.O_RDONLY)  # the lowest free descriptor: none was left open
    os.close(open_now)
    monkeypatch.setattr(os, "write", real)
    file.write([b"ghi\n"])
    assert os.fstat(open_now).st_ino == path.stat().st_ino
    file.close()
    assert path.read_bytes() == b"abc\nd\nghi\n"


def test_closing_twice_is_fine(path: Path) -> None:
    file = RotatedFile(path, max_bytes=100, backups=1)
    file.close()
    file.write([b"a\n"])
    file.close()
    file.close()
