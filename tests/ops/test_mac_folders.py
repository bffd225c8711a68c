"""mac_folders: folders that macOS keeps from an agent are named, and a disk that is not there yet is waited for."""

from __future__ import annotations

from pathlib import Path

from draftd.ops.mac_folders import guarded, wait_for_volumes


def test_private_folders_and_volumes_are_named_and_no_others() -> None:
    home = Path("/Users/me")
    private = [
        home / "Documents" / "draftd" / "profiles",
        home / "Library" / "Mobile Documents" / "x",
        Path("/Volumes/Disk/models"),
    ]
    others = [home / "Documents2", home / ".config" / "draftd", Path("/opt/models"), home]
    assert guarded([*private, *others, *private], home) == private


def test_a_disk_that_is_not_mounted_is_waited_for_and_told_once(tmp_path: Path) -> None:
    volumes, told, slept = tmp_path / "Volumes", list[str](), list[float]()
    (volumes / "There").mkdir(parents=True)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            (volumes / "Later").mkdir()

    paths = [volumes / "Later" / "models" / "x", volumes / "There" / "y", tmp_path / "elsewhere", volumes]
    wait_for_volumes(paths, told.append, volumes=volumes, sleep=sleep)
    assert told == [f"waiting for {volumes / 'Later'}, which is not mounted yet"]
    assert len(slept) == 2
    wait_for_volumes(paths, told.append, volumes=volumes, sleep=sleep)
    assert len(told) == 1
