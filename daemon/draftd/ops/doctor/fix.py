"""What the doctor may mend by itself: nothing that a person wrote, and nothing that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from draftd.errors import AlreadyRunningError
from draftd.instance import NOTE, Instance
from draftd.ops.doctor.facts import Facts


def fix(facts: Facts) -> Iterator[str]:
    """Mend what is safe to mend; a sentence for each thing done."""
    folder = facts.state_dir
    if facts.stale_note:
        # Holding the folder as a daemon does, so that no daemon can be starting; leaving removes the note.
        with suppress(AlreadyRunningError), Instance(folder):
            yield f"removed {folder / NOTE}, which an ended daemon had left"
    if not facts.hub_cache_exists:
        facts.hub_cache.mkdir(parents=True, exist_ok=True)
        yield f"created {facts.hub_cache}"
