"""What the last words of a child say about the GPU, in words and with a reason. Pure.

Metal ends a process that it cannot serve with an exception that nobody can catch, so that all there is to see is
SIGABRT, and a line with the name of one of Metal's errors.
"""

from __future__ import annotations

from dataclasses import dataclass

from draftd.workers.states import GPU_MEMORY, GPU_TIMEOUT, GPU_VICTIM

_METAL = "kIOGPUCommandBufferCallbackError"


@dataclass(frozen=True, slots=True)
class GpuFault:
    """Why the GPU gave up: a short `reason` for states and metrics, and `words` for people."""

    reason: str
    words: str


_TOO_LONG = GpuFault(
    GPU_TIMEOUT, "work on the GPU took too long, and was ended: a smaller `prefill_step_size` or model helps"
)
FAULTS = {
    f"{_METAL}OutOfMemory": GpuFault(
        GPU_MEMORY,
        "the GPU ran out of memory: a smaller model, context or `prompt_cache_bytes`, or fewer workers, help",
    ),
    f"{_METAL}ImpactingInteractivity": GpuFault(
        GPU_TIMEOUT,
        "macOS ended work on the GPU that kept the screen waiting: a smaller `prefill_step_size` or model helps",
    ),
    f"{_METAL}Timeout": _TOO_LONG,
    f"{_METAL}Hang": _TOO_LONG,
    f"{_METAL}InnocentVictim": GpuFault(
        GPU_VICTIM, "the GPU was reset because of another program's fault; nothing is wrong with this worker"
    ),
}


def gpu_fault(said: bytes) -> GpuFault | None:
    """The latest fault in a child's last words; None if there is none."""
    places = {name: said.rfind(name.encode()) for name in FAULTS}
    latest = max(places, key=lambda name: places[name])
    return FAULTS[latest] if places[latest] >= 0 else None
