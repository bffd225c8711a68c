"""What the last words of a child say about the GPU, in words and with a reason. Pure.

Metal ends a process that it cannot serve with an exception that nobody can catch, so that all there is to see is
SIGABRT, and a line with the name of one of Metal's errors. Names that this module does not know are told as is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from draftd.workers.events import GPU_FAULT, GPU_MEMORY, GPU_TIMEOUT, GPU_VICTIM

# Older systems, and Macs with another GPU than Apple's, say kIOAccel.
_METAL = re.compile(rb"kIO(?:GPU|Accel)CommandBufferCallbackError([A-Za-z]{1,60})")


@dataclass(frozen=True, slots=True)
class GpuFault:
    """Why the GPU gave up: a short `reason` for states and metrics, and `words` for people."""

    reason: str
    words: str


_TOO_LONG = GpuFault(
    GPU_TIMEOUT, "work on the GPU took too long, and was ended: a smaller `prefill_step_size` or model helps"
)
_ADDRESS = GpuFault(
    GPU_FAULT,
    "work on the GPU accessed memory that is not its own, a fault of mlx or of the system: newer ones may help",
)
_NOT_ALLOWED = GpuFault(
    GPU_FAULT,
    "macOS does not let this process work on the GPU: run draftd in the session of a user who is logged in",
)
FAULTS = {
    "OutOfMemory": GpuFault(
        GPU_MEMORY,
        "the GPU ran out of memory: a smaller model, context or `prompt_cache_bytes`, or fewer workers, help",
    ),
    "ImpactingInteractivity": GpuFault(
        GPU_TIMEOUT,
        "macOS ended work on the GPU that kept the screen waiting: a smaller `prefill_step_size` or model helps",
    ),
    "Timeout": _TOO_LONG,
    "Hang": _TOO_LONG,
    "InnocentVictim": GpuFault(
        GPU_VICTIM, "the GPU was reset because of another program's fault; nothing is wrong with this worker"
    ),
    "PageFault": _ADDRESS,
    "InvalidResource": _ADDRESS,
    "StackOverflow": _ADDRESS,
    "BackgroundExecutionNotPermitted": _NOT_ALLOWED,
    "AccessRevoked": _NOT_ALLOWED,
    "NotPermitted": _NOT_ALLOWED,
    "Blacklisted": GpuFault(
        GPU_FAULT,
        "the GPU refuses this process after earlier faults: a new one may work again, else a restart",
    ),
}
_SYMPTOMS = {"SubmissionsIgnored"}  # what comes after another error, whose name says more


def gpu_fault(said: bytes) -> GpuFault | None:
    """The latest fault in a child's last words; None if there is none."""
    names = [found[1].decode() for found in _METAL.finditer(said)]
    causes = [name for name in names if name not in _SYMPTOMS] or names
    return (FAULTS.get(causes[-1]) or _other(causes[-1])) if causes else None


def _other(name: str) -> GpuFault:
    return GpuFault(GPU_FAULT, f"Metal ended the work on the GPU ({name}): the lines above say more")
