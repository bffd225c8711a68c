"""Files that are not what they should be, that go meanwhile, or that the disk does not take."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draftd.engine.stored_prompts import store as module
from draftd.engine.stored_prompts.files import NewFile, StoredFiles
from draftd.engine.stored_prompts.layers import bytes_of
from draftd.protocol import PROMPT_CACHE_SUFFIX
from tests.engine.stored_prompts.engines import GB, LENGTH, PROMPT, Engine, files


def test_it_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    engine = Engine(folder)
    engine.put(PROMPT)
    engine.end()
    modes = [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())]
    assert modes[0] == 0o700
    assert set(modes[1:]) == {0o600}


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)


def _replaced(path: Path, old: bytes, new: bytes) -> None:
    """Make a file that is whole, and another one."""
    data = path.read_bytes()[:-4].replace(old, new)
    path.write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))


def _other_tokens(path: Path) -> None:
    _replaced(path, bytes([PROMPT[395], 0, 0, 0, PROMPT[396]]), bytes([9, 0, 0, 0, PROMPT[396]]))


def _other_class(path: Path) -> None:
    _replaced(path, b'"KVCache"', b'"Exploit"')


def _other_shape(path: Path) -> None:
    _replaced(path, b"[1, 1, 400, 64]", b"[1, 1, 400, 32]")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _readable(path: Path) -> None:
    path.chmod(0o644)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _other_models(path: Path) -> None:
    _replaced(path, b"a" * 64, b"a" * 63 + b"b")


@pytest.mark.fault(130)
@pytest.mark.parametrize(
    "harm",
    [
        *(_shorter, _flipped, _empty, _noise, _readable, _link),
        *(_other_models, _other_tokens, _other_class, _other_shape),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_removed_and_said(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    (path,) = files(tmp_path)
    harm(path)
    engine = Engine(tmp_path)
    assert engine.taken_up(PROMPT) == 0
    assert files(tmp_path) == []
    (said,) = engine.said
    assert said.startswith(f"the stored prompt {path.name} was removed: ")
    assert (first.outcomes, engine.outcomes) == (["stored"], ["refused"])


def test_other_models_take_up_nothing_and_remove_nothing(tmp_path: Path) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    other = Engine(tmp_path, identity="b" * 64)
    assert other.taken_up(PROMPT) == 0
    assert (len(files(tmp_path)), other.said) == (1, [])


def test_a_file_that_goes_meanwhile_is_none(tmp_path: Path) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    second = Engine(tmp_path)
    assert second.store._files.look()
    files(tmp_path)[0].unlink()
    assert second.taken_up(PROMPT) == 0
    assert second.said == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_cannot_be_read_for_now_is_kept(
    known: bool, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Engine(tmp_path)
    for beginning in (1, 2):
        first.put([beginning, *PROMPT])
    first.end()
    engine = Engine(tmp_path)
    if known:
        assert len(engine.store._files.look()) == 2

    def short(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as shortage:
        shortage.setattr("draftd.engine.stored_prompts.files.os.open", short)
        assert [engine.taken_up([beginning, *PROMPT, 9]) for beginning in (1, 2)] == [0, 0]
    assert engine.said == [f"a stored prompt could not be read, and is kept: {os.strerror(number)}"]
    assert len(files(tmp_path)) == 2
    assert [engine.taken_up([beginning, *PROMPT, 9]) for beginning in (1, 2)] == [LENGTH + 1] * 2


@pytest.mark.fault(131)
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("draftd.engine.stored_prompts.files.NewFile._append", full)
    engine.end()
    assert engine.said == ["a prompt cache could not be stored: No space left on device"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.fault(133)
def test_what_a_killed_engine_left_unfinished_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    dead, living = (tmp_path / f"x{PROMPT_CACHE_SUFFIX}.{pid}.unfinished" for pid in (os.getpid(), 2**22 + 1))
    dead.write_bytes(b"x")  # in a container the next engine may well have the same number
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Engine(tmp_path)
        assert (dead.exists(), living.exists()) == (False, True)
    Engine(tmp_path)
    assert not living.exists()


def test_a_file_is_held_while_it_is_written_until_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    append, room_for = NewFile._append, StoredFiles.room_for
    starts = 0

    def start() -> None:
        nonlocal starts
        starts += 1
        StoredFiles(tmp_path, GB, "a" * 64, print, print)._sweep()  # another engine starts

    def appending(file: NewFile, piece: Any) -> None:
        start()
        append(file, piece)

    def making_room(stored: StoredFiles, *how: Any) -> Any:
        start()
        return room_for(stored, *how)

    monkeypatch.setattr(NewFile, "_append", appending)
    monkeypatch.setattr(StoredFiles, "room_for", making_room)
    engine.end()
    # Before it is begun, its beginning, its keys, its values, before it is put in its place.
    assert starts == 5
    assert (len(files(tmp_path)), engine.said) == (1, [])


def test_an_entry_that_breaks_off_leaves_nothing_half_and_the_next_one_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, now = Engine(tmp_path), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    monkeypatch.setattr(module, "RATE", 1000)
    engine.put(PROMPT)
    pieces: list[memoryview] = []

    def broken(array: Any) -> memoryview:
        if pieces:
            raise RuntimeError("out of memory")
        pieces.append(bytes_of(array))
        return pieces[0]

    with monkeypatch.context() as shortage:
        shortage.setattr(module, "bytes_of", broken)
        engine.store.idle(engine.cache)
        engine.store._jobs.join()
    assert engine.said == ["a prompt cache could not be stored: RuntimeError('out of memory')"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert engine.store._rests_until == now + pieces[0].nbytes / 1000  # that much was written
    now = engine.store._rests_until
    engine.put([1, *PROMPT])
    engine.store.idle(engine.cache)
    engine.store._jobs.join()
    assert len(files(tmp_path)) == 1
    assert (
        engine.store._rests_until == now + 2 * (LENGTH + 1) * 64 * 4 / 1000
    )  # the first one does not count again
