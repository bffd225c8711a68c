"""What the tools of macOS print, read. Pure.

The forms are those that others have published; `make mac-check` saves what a Mac really prints beside its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

UNITS = {"B": 1, "bytes": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
_SIZE = r"([0-9.]+) (B|bytes|KB|MB|GB)\b"
_FOOTPRINT = (re.compile(rf"phys_footprint: {_SIZE}"), re.compile(rf"Footprint: {_SIZE}"))
_PAGE = re.compile(r"page size of (\d+) bytes")
_WIRED = re.compile(r"Pages wired down:\s+(\d+)\.")
_HOLDER = re.compile(r"^\s+pid (\d+)\((.*?)\): .* (\w+) named:")


def footprint_bytes(text: str) -> int:
    """The physical footprint in what `footprint PID` prints. Raises ValueError."""
    for form in _FOOTPRINT:
        if found := form.search(text):
            return round(float(found[1]) * UNITS[found[2]])
    raise ValueError("footprint names no footprint")


def wired_bytes(text: str) -> int:
    """The memory that is wired, in what `vm_stat` prints. Raises ValueError."""
    page, pages = _PAGE.search(text), _WIRED.search(text)
    if page is None or pages is None:
        raise ValueError("vm_stat names no wired pages")
    return int(page[1]) * int(pages[1])


@dataclass(frozen=True, slots=True)
class Assertion:
    """A process that keeps the Mac awake: `kind` is as PreventUserIdleSystemSleep, `details` the lines below it."""

    pid: int
    holder: str
    kind: str
    details: str


def assertions(text: str) -> Iterator[Assertion]:
    """The assertions by process, in what `pmset -g assertions` prints."""
    found: Assertion | None = None
    for line in text.splitlines():
        if match := _HOLDER.match(line):
            if found:
                yield found
            found = Assertion(int(match[1]), match[2], match[3], "")
        elif found and line.strip():
            found = Assertion(found.pid, found.holder, found.kind, f"{found.details}{line.strip()}\n")
    if found:
        yield found
