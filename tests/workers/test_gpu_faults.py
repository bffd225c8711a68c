"""Metal's errors in a child's last words."""

from __future__ import annotations

import pytest

from draftd.workers.gpu_faults import gpu_fault

LINE = (
    b"libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer "
    b"execution failed: Words (00000008:kIOGPUCommandBufferCallbackError%s)\n"
)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        (b"OutOfMemory", "gpu_memory", "ran out of memory"),
        (b"ImpactingInteractivity", "gpu_timeout", "kept the screen waiting"),
        (b"Timeout", "gpu_timeout", "took too long"),
        (b"Hang", "gpu_timeout", "took too long"),
        (b"InnocentVictim", "gpu_victim", "another program's fault"),
        (b"PageFault", "gpu_fault", "memory that is not its own"),
        (b"BackgroundExecutionNotPermitted", "gpu_fault", "a user who is logged in"),
        (b"Blacklisted", "gpu_fault", "after earlier faults"),
        (b"SubmissionsIgnored", "gpu_fault", "(SubmissionsIgnored)"),
        (b"SomethingNew", "gpu_fault", "(SomethingNew)"),
    ],
)
def test_each_error_has_a_reason_and_words(name: bytes, reason: str, words: str) -> None:
    fault = gpu_fault(b"before\n" + LINE % name + b"after\n")
    assert fault is not None
    assert fault.reason == reason
    assert words in fault.words


def test_the_latest_counts() -> None:
    fault = gpu_fault(LINE % b"InnocentVictim" + LINE % b"OutOfMemory")
    assert fault is not None
    assert fault.reason == "gpu_memory"


def test_what_only_follows_from_a_fault_does_not_hide_it() -> None:
    fault = gpu_fault(LINE % b"PageFault" + LINE % b"SubmissionsIgnored" * 3)
    assert fault is not None
    assert "memory that is not its own" in fault.words


def test_the_names_of_older_systems_are_known() -> None:
    fault = gpu_fault((LINE % b"OutOfMemory").replace(b"kIOGPU", b"kIOAccel"))
    assert fault is not None
    assert fault.reason == "gpu_memory"


def test_other_words_tell_of_no_fault_of_the_gpu() -> None:
    assert gpu_fault(b"") is None
    assert gpu_fault(b"MemoryError: out of memory") is None
    assert gpu_fault(b"kIOGPUCommandBufferCallbackError") is None
