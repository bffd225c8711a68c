"""How much memory this machine has for models, and whether memory is getting short.

On a Mac the GPU may use a share of the memory, which depends on its size (about 67 % of 16 GB, 84 % of 128 GB) and
on `sysctl iogpu.wired_limit_mb`. Only Metal knows it, so a child asks: the daemon itself never imports mlx.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from draftd.files import MAX_CONFIG, read_text
from draftd.pressure import Pressure

SHARE_OF_MEMORY = 0.75  # for all workers, where no GPU says what it may have
LESS_SHARE = 0.65  # the same on a Mac whose GPU did not answer: the least that macOS ever gives a GPU
ASK = """
import mlx.core as mx
print(mx.device_info().get("max_recommended_working_set_size", 0))
"""
ASK_LIMIT = 20.0  # seconds
PRESSURE_FILE = Path("/proc/pressure/memory")
PRESSURE_NAME = b"kern.memorystatus_vm_pressure_level"
# The share of the last 10 s in which programs waited for memory, in percent: some of them, and all of them.
SOME_WAITS, ALL_WAITS = 10.0, 5.0


@functools.cache
def memory_share() -> int:
    """Bytes that all workers together may take. Blocking: on a Mac it takes as long as importing mlx."""
    total = psutil.virtual_memory().total
    if sys.platform != "darwin":
        return int(SHARE_OF_MEMORY * total)
    return ask_gpu() or int(LESS_SHARE * total)


def memory_budget(setting: int | Literal["auto"]) -> int:
    """Bytes that all workers together may take, by the setting of that name. Blocking: see `memory_share`."""
    return memory_share() if setting == "auto" else int(setting)


def ask_gpu() -> int | None:
    """Bytes that the GPU may use, as told by a child that asks mlx; None if it does not say."""
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env=env,
            capture_output=True,
            timeout=ASK_LIMIT,
            check=True,
            cwd=os.sep,
        )
        return int(done.stdout) or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def pressure(source: Literal["auto", "off"] | Path = "auto") -> Pressure | None:
    """How short memory is now, by the setting `memory_pressure`; None where nobody says.

    It is not judged by what is free: a healthy Mac uses all of it.
    """
    if source == "off":
        return None
    if isinstance(source, Path):
        return _pressure_in(source)
    return _pressure_of_mac() if sys.platform == "darwin" else _pressure_in(PRESSURE_FILE)


def _pressure_of_mac(library: Any = None) -> Pressure | None:
    level = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(level))
    with suppress(OSError, AttributeError, ValueError):
        system = library or ctypes.CDLL(None)
        if system.sysctlbyname(PRESSURE_NAME, ctypes.byref(level), ctypes.byref(size), None, 0) == 0:
            return Pressure(level.value)
    return None


def _pressure_in(file: Path) -> Pressure | None:
    """From Linux's pressure stall information (PSI), of the machine or of a control group."""
    try:
        lines = read_text(file, most=MAX_CONFIG).splitlines()
        shares = {line.split()[0]: float(line.split()[1].removeprefix("avg10=")) for line in lines}
        some, everything = shares["some"], shares["full"]
    except (OSError, ValueError, LookupError):  # a kernel without it, or a container
        return None
    if everything >= ALL_WAITS:
        return Pressure.CRITICAL
    return Pressure.WARNING if some >= SOME_WAITS else Pressure.NORMAL
