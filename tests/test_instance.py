"""instance: one daemon per state folder, found by its lock and its note, and never mistaken for another process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from draftd import instance
from draftd.errors import AlreadyRunningError, ConfigError, NotRunningError
from draftd.instance import LOCK, NOTE, Instance, find_daemon
from tests.harness import closed

URL = "http://127.0.0.1:8080"


def own_note() -> dict[str, Any]:
    """What a daemon in this process writes."""
    return {"pid": os.getpid(), "created": instance._created(os.getpid()), "url": URL, "version": "1.2"}


def write_note(folder: Path, text: str) -> None:
    (folder / NOTE).write_text(text, "utf-8")


def no_daemon(folder: Path) -> str:
    with pytest.raises(NotRunningError) as caught:
        find_daemon(folder)
    return str(caught.value)


OTHER = f"""
import sys
from pathlib import Path
from draftd.instance import Instance
with Instance(Path(sys.argv[1])) as held:
    if sys.argv[2:]:
        held.announce({URL!r}, "1.2")
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def daemon_elsewhere(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `folder`, and announces itself if any word is given."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


# --- the lock -----------------------------------------------------------------------------------------------


def test_a_second_daemon_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with Instance(tmp_path) as first:
        first.announce(URL, "1.2")
        with pytest.raises(AlreadyRunningError), Instance(tmp_path):
            pass
        assert find_daemon(tmp_path).url == URL  # the first is untouched


def test_a_second_daemon_in_another_process_is_told_who_runs(tmp_path: Path) -> None:
    with daemon_elsewhere(tmp_path, "announce") as other:
        with pytest.raises(AlreadyRunningError) as caught, Instance(tmp_path):
            pass
        assert str(caught.value) == f"draftd 1.2 runs already: pid {other.pid}, {URL}; 'draftd down' stops it"


@pytest.mark.parametrize("stale", [False, True])
def test_a_second_daemon_is_not_told_of_an_earlier_one_while_the_first_still_starts(
    tmp_path: Path, stale: bool
) -> None:
    if stale:
        write_note(tmp_path, json.dumps(own_note() | {"created": 1.0}))
    with daemon_elsewhere(tmp_path):
        with pytest.raises(AlreadyRunningError, match="another draftd is starting in") as caught:
            Instance(tmp_path).__enter__()
        assert URL not in str(caught.value)


def test_a_killed_daemon_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    with daemon_elsewhere(tmp_path, "announce") as other:
        other.kill()
        other.wait()
    assert (tmp_path / NOTE).exists()
    assert "no daemon is running" in no_daemon(tmp_path)
    with Instance(tmp_path) as held:
        held.announce(URL, "1.3")
        assert find_daemon(tmp_path).version == "1.3"


@pytest.mark.fault(112)
def test_an_agent_waits_until_the_other_daemon_has_ended(tmp_path: Path) -> None:
    """launchd would restart one that ends, every 10 s."""
    told: list[str] = []
    slept: list[float] = []
    with ExitStack() as other:
        other.enter_context(Instance(tmp_path)).announce(URL, "1.2")

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                other.close()

        instance.wait_until_free(tmp_path, told.append, sleep=sleep)
    assert len(slept) == 3
    [line] = told
    assert line.startswith(f"draftd 1.2 runs already: pid {os.getpid()}, {URL}")
    instance.wait_until_free(tmp_path, told.append, sleep=sleep)
    assert (len(told), len(slept)) == (1, 3)


def test_two_folders_hold_two_daemons(tmp_path: Path) -> None:
    with Instance(tmp_path / "a"), Instance(tmp_path / "b") as second:
        second.announce(URL, "1.2")
        assert find_daemon(tmp_path / "b").pid == os.getpid()
        assert "does not answer yet" in no_daemon(tmp_path / "a")


def test_a_folder_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with Instance(tmp_path) as held:
            held.announce(URL, "1.2")
        assert not (tmp_path / NOTE).exists()
        assert "no daemon is running" in no_daemon(tmp_path)


@pytest.mark.fault(55)
@pytest.mark.parametrize("swept", ["folder", LOCK, NOTE])
def test_a_folder_that_is_swept_is_taken_again(tmp_path: Path, swept: str) -> None:
    folder = tmp_path / "state"
    with Instance(folder) as held:
        held.announce(URL, "1.2")
        assert not held.restore()
        (shutil.rmtree(folder) if swept == "folder" else (folder / swept).unlink())
        assert held.restore()
        assert not held.restore()
        assert find_daemon(folder).url == URL
        with pytest.raises(AlreadyRunningError, match=URL), Instance(folder):
            pass
    assert "no daemon is running" in no_daemon(folder)
    with Instance(folder):
        pass


def test_a_folder_that_is_swept_before_the_note_is_written_is_taken_again_too(tmp_path: Path) -> None:
    with Instance(tmp_path / "state") as held:
        shutil.rmtree(tmp_path / "state")
        assert held.restore()
        assert not (tmp_path / "state" / NOTE).exists()
        assert "does not answer yet" in no_daemon(tmp_path / "state")


def test_a_swept_folder_that_another_daemon_has_taken_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with ExitStack() as others:
        with Instance(folder) as held:
            held.announce(URL, "1.2")
            shutil.rmtree(folder)
            other = others.enter_context(daemon_elsewhere(folder, "announce"))
            with pytest.raises(AlreadyRunningError, match=str(other.pid)):
                held.restore()
        assert find_daemon(folder).pid == other.pid


@pytest.mark.fault(173)
def test_a_folder_that_may_no_longer_be_looked_into_is_told_and_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with Instance(folder) as held:
        held.announce(URL, "1.2")
        with closed(folder), pytest.raises(ConfigError, match="cannot be used: Operation not permitted"):
            held.restore()
        assert not held.restore()
        assert find_daemon(folder).url == URL


@pytest.mark.fault(173)
def test_a_folder_that_was_closed_is_opened_again_and_nobody_else_is_taken_for_its_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    with Instance(folder) as held, ExitStack() as closing:
        held.announce(URL, "1.2")
        closing.enter_context(closed(folder))
        monkeypatch.setattr(Path, "chmod", lambda *_: closing.close())
        held.restore()
        assert find_daemon(folder).url == URL


def test_a_look_at_the_lock_does_not_keep_a_daemon_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`draftd status` holds a shared lock on it for an instant."""
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        waits: list[float] = []

        def reader_ends(seconds: float) -> None:
            waits.append(seconds)
            fcntl.flock(reader, fcntl.LOCK_UN)

        monkeypatch.setattr("draftd.instance.time.sleep", reader_ends)
        with Instance(tmp_path):
            assert len(waits) == 1


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_state_folder_that_cannot_be_used_is_the_users_fault(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / below
    with pytest.raises(ConfigError, match="cannot be used") as caught, Instance(folder):
        pass
    assert str(folder) in str(caught.value)
    assert "no daemon is running" in no_daemon(folder)


def test_a_state_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Instance(folder) as held:
        held.announce(URL, "1.2")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / NOTE).stat().st_mode & 0o777 == 0o600


@pytest.mark.fault(72)
def test_a_folder_of_an_earlier_version_is_taken_from_the_eyes_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "logs").mkdir(parents=True, mode=0o755)
    files = [folder / name for name in (LOCK, "bench.json", "logs/a.log", "logs/a.log.1")]
    for file in [*files, folder / "not-ours.txt"]:
        file.touch(mode=0o644)
    with Instance(folder) as held:
        held.announce(URL, "1.2")
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {each.stat().st_mode & 0o777 for each in (folder, folder / "logs")} == {0o700}
    assert (folder / "not-ours.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.fault(72)
@pytest.mark.parametrize("open_to_others", ["", "logs"])
def test_a_folder_where_others_can_write_is_refused(tmp_path: Path, open_to_others: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / open_to_others).chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"), Instance(tmp_path):
        pass


@pytest.mark.fault(72)
def test_nothing_is_believed_where_others_can_write(tmp_path: Path) -> None:
    """The note would name an address to which the key is sent, and a process that `down` ends."""
    with Instance(tmp_path) as held:
        held.announce(URL, "1.2")
        tmp_path.chmod(0o777)
        with pytest.raises(ConfigError, match="chmod 700"):
            find_daemon(tmp_path)
        tmp_path.chmod(0o755)
        assert find_daemon(tmp_path).url == URL


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", [LOCK, "logs"])
def test_a_link_in_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match=f"{name}.*symbolic link|symbolic link.*{name}"), Instance(folder):
        pass
    assert not (tmp_path / "victim").exists()


@pytest.mark.fault(72)
def test_a_link_in_the_place_of_the_note_is_neither_read_nor_written(tmp_path: Path) -> None:
    folder, victim = tmp_path / "state", tmp_path / "victim"
    folder.mkdir()
    victim.write_text(json.dumps(own_note() | {"url": "http://evil"}))
    (folder / NOTE).symlink_to(victim)
    with Instance(folder) as held:
        assert "does not answer yet" in no_daemon(folder)
        held.announce(URL, "1.2")
        assert find_daemon(folder).url == URL
    assert "evil" in victim.read_text()


@pytest.mark.fault(73)
@pytest.mark.parametrize("name", [LOCK, NOTE])
def test_a_pipe_in_the_folder_holds_nobody_up(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "no daemon is running" in no_daemon(tmp_path)
    if name == LOCK:
        with pytest.raises(ConfigError, match="it is a named pipe, not a file"), Instance(tmp_path):
            pass


def test_a_note_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{NOTE}.new").mkdir()
    with Instance(tmp_path) as held, pytest.raises(ConfigError, match="cannot be used"):
        held.announce(URL, "1.2")


def test_a_state_folder_that_is_gone_at_the_end_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with Instance(folder):
        (folder / LOCK).unlink()
        folder.rmdir()
    with Instance(folder) as held:
        held.announce(URL, "1.2")
        assert find_daemon(folder).url == URL


# --- the note -----------------------------------------------------------------------------------------------


def test_a_daemon_is_found_from_another_process(tmp_path: Path) -> None:
    with daemon_elsewhere(tmp_path, "announce") as other:
        found = find_daemon(tmp_path)
    assert (found.pid, found.url, found.version) == (other.pid, URL, "1.2")


def test_no_daemon_is_found_where_none_ever_ran(tmp_path: Path) -> None:
    assert no_daemon(tmp_path) == f"no daemon is running (state folder {tmp_path}); 'draftd up' starts one"
    assert "no daemon is running" in no_daemon(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def test_a_note_without_a_held_lock_is_not_believed(tmp_path: Path) -> None:
    write_note(tmp_path, json.dumps(own_note()))
    assert "no daemon is running" in no_daemon(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"created": 1.0}, {"pid": 2**22 + 1}, {"pid": -1}, {"pid": None}, {"pid": "1"}, {"created": "x"}],
    ids=str,
)
def test_a_note_that_names_no_process_or_a_later_one_of_its_pid_is_not_believed(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with Instance(tmp_path):
        write_note(tmp_path, json.dumps(own_note()))
        assert find_daemon(tmp_path).pid == os.getpid()
        write_note(tmp_path, json.dumps(own_note() | changes))
        assert "does not answer yet" in no_daemon(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]", "5", "null", '{"pid": 1, "more": 2}', "\x00"])
def test_a_half_written_note_is_none_yet(tmp_path: Path, text: str) -> None:
    with Instance(tmp_path):
        write_note(tmp_path, text)
        assert "does not answer yet" in no_daemon(tmp_path)


def test_a_note_that_is_not_text_is_none(tmp_path: Path) -> None:
    with Instance(tmp_path):
        (tmp_path / NOTE).write_bytes(b"\xff\xfe")
        assert "does not answer yet" in no_daemon(tmp_path)


def test_a_daemon_is_still_found_after_the_wall_clock_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Linux: psutil adds to a process's age in ticks the boot time, which moves with the clock."""
    real = psutil.Process.create_time
    with Instance(tmp_path) as held:
        held.announce(URL, "1.2")
        boot = psutil.boot_time()
        monkeypatch.setattr("sys.platform", "linux")
        held.announce(URL, "1.2")
        monkeypatch.setattr(psutil, "boot_time", lambda: boot + 86_400)
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 86_400)
        assert find_daemon(tmp_path).url == URL
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 86_400 + 60)
        assert "does not answer yet" in no_daemon(tmp_path)
