"""What the tools of macOS print, in the forms that others have published."""

from __future__ import annotations

import pytest

from tests.mac_check.tool_output import Assertion, assertions, footprint_bytes, wired_bytes

ASSERTIONS = """\
2025-11-02 13:20:57 -0600
Assertion status system-wide:
   UserIsActive                   1
   PreventUserIdleSystemSleep     1
Listed by owning process:
   pid 98217(caffeinate): [0x00045477000194b3] 00:00:03 PreventUserIdleSystemSleep named: "caffeinate command"
        Details: caffeinate asserting on behalf of Process ID 4711
        Localized=THE CAFFEINATE TOOL IS PREVENTING SLEEP.
   pid 80(powerd): [0x00044f2f00019216] 00:22:34 UserIsActive named: "Powerd - Prevent sleep while display is on"
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Python [12]: 64-bit    Footprint: 35 MB (16384 bytes per page)", 35 * 2**20),
        (
            "Python [12]: 64-bit    Footprint: 9 MB\nAuxiliary data:\n    phys_footprint: 9617 KB",
            9617 * 2**10,
        ),
        ("x [1]: 64-bit    Footprint: 1.5 GB (16384 bytes per page)", 3 * 2**29),
    ],
)
def test_the_footprint_is_read_in_all_units(text: str, size: int) -> None:
    assert footprint_bytes(text) == size


def test_wired_memory_is_pages_of_the_size_that_is_named() -> None:
    text = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages wired down:                  1000.\n"
    assert wired_bytes(text) == 16384000


def test_what_names_nothing_is_an_error() -> None:
    for read in (footprint_bytes, wired_bytes):
        with pytest.raises(ValueError, match="names no"):
            read("")


def test_assertions_are_those_of_processes_with_their_details() -> None:
    ours, other = assertions(ASSERTIONS)
    assert (ours.pid, ours.holder, ours.kind) == (98217, "caffeinate", "PreventUserIdleSystemSleep")
    assert "on behalf of Process ID 4711" in ours.details
    assert other == Assertion(80, "powerd", "UserIsActive", "")
    assert list(assertions("Assertion status system-wide:\n   UserIsActive   0\n")) == []
