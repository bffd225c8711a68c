"""The memory that a machine has for models, and whether it is short: stand-ins for Metal, sysctl and the kernel."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from draftd import machine_memory
from draftd.machine_memory import ask_gpu, memory_share, pressure
from draftd.pressure import Pressure

TOTAL = psutil.virtual_memory().total


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    memory_share.cache_clear()
    yield
    memory_share.cache_clear()


def stand_in_for_mlx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Have `import mlx.core` run `code` in children."""
    package = tmp_path / "mlx"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "core.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("def device_info(): return {'max_recommended_working_set_size': 11453251584}", 11453251584),
        ("def device_info(): return {'architecture': 'x86_64'}", None),
        ("raise ImportError('no Metal')", None),
        ("def device_info(): print('not a number'); return {}", None),
    ],
)
def test_a_child_asks_metal_what_the_gpu_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, share: int | None
) -> None:
    stand_in_for_mlx(monkeypatch, tmp_path, code)
    assert ask_gpu() == share
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory_share() == (share or int(0.65 * TOTAL))


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in_for_mlx(monkeypatch, tmp_path, "import time; time.sleep(100)")
    monkeypatch.setattr(machine_memory, "ASK_LIMIT", 0.2)
    assert ask_gpu() is None


def test_without_a_gpu_of_its_own_the_share_is_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine_memory, "ask_gpu", lambda: pytest.fail("there is no Metal to ask"))
    assert memory_share() == int(0.75 * TOTAL)


class Sysctl:
    """Stands in for macOS's library: it knows one name."""

    def __init__(self, level: int) -> None:
        self.level = level

    def sysctlbyname(self, name: bytes, value: Any, size: Any, new: None, new_size: int) -> int:
        if name != b"kern.memorystatus_vm_pressure_level" or (new, new_size) != (None, 0):
            return -1
        ctypes.memmove(ctypes.addressof(value._obj), ctypes.byref(ctypes.c_int(self.level)), size._obj.value)
        return 0


@pytest.mark.fault(101)
@pytest.mark.parametrize(
    ("level", "known"), [(1, Pressure.NORMAL), (2, Pressure.WARNING), (4, Pressure.CRITICAL), (77, None)]
)
def test_a_macs_pressure_is_what_its_kernel_says(level: int, known: Pressure | None) -> None:
    assert machine_memory._pressure_of_mac(Sysctl(level)) == known


def test_a_system_without_that_name_says_nothing() -> None:
    assert machine_memory._pressure_of_mac() is None  # this one


@pytest.mark.fault(101)
@pytest.mark.parametrize(
    ("some", "full", "known"),
    [
        ("0.00", "0.00", Pressure.NORMAL),
        ("9.99", "0.00", Pressure.NORMAL),
        ("10.00", "1.00", Pressure.WARNING),
        ("40.00", "5.00", Pressure.CRITICAL),
    ],
)
def test_the_pressure_on_linux_is_the_time_that_programs_wait_for_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, some: str, full: str, known: Pressure
) -> None:
    file = tmp_path / "memory"
    monkeypatch.setattr(machine_memory, "PRESSURE_FILE", file)
    monkeypatch.setattr(sys, "platform", "linux")
    rest = "avg60=99.00 avg300=99.00 total=12345"
    file.write_text(f"some avg10={some} {rest}\nfull avg10={full} {rest}\n")
    assert pressure() == known


@pytest.mark.parametrize("text", [None, "", "some avg10=x avg60=0\n", "some avg10=1.0\n", "nonsense\n"])
def test_a_kernel_that_does_not_say_leaves_it_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "memory"
    monkeypatch.setattr(machine_memory, "PRESSURE_FILE", file)
    monkeypatch.setattr(sys, "platform", "linux")
    if text is not None:
        file.write_text(text)
    assert pressure() is None


@pytest.mark.fault(73)
@pytest.mark.parametrize("path", [Path("/dev/zero"), None])
def test_a_device_or_a_pipe_is_not_read_for_ever(tmp_path: Path, path: Path | None) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    assert pressure(path or pipe) is None
