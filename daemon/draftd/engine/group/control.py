"""A rank's end of what connects it with the launcher, and what ends it when that is cut.

stdin and stdout are taken away from everything else in the process: what a library prints goes to stderr, and so
into the log. A thread reads, and ends the process at the end of file or after SILENCE_S seconds without a line.
"""

import json
import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from draftd.engine import records, release
from draftd.engine.exits import EngineError
from draftd.engine.group import wire
from draftd.protocol import EXIT_ORPHANED, EXIT_REFUSED, MemoryShare


class Control:
    """See the module. `setup` is there when it is made; `start` begins to listen."""

    def __init__(self) -> None:
        """Take stdin and stdout. Raise EngineError if there is no Setup."""
        self._in, self._out = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self._held = b""
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._woken = threading.Event()
        self._obey: Callable[[MemoryShare], None] = lambda _: None
        self._share: MemoryShare | None = None  # the newest
        try:
            self.setup = wire.Setup.parse(self._next_line() or b"")
        except ValueError as error:
            raise EngineError(EXIT_REFUSED, f"a rank is started by its group: {error}") from error

    def start(self) -> None:
        """Listen, say once a second that this rank lives, and send records from now on."""
        records.report_to(self._out)
        for work in (self._listen, self._beat):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def say(self, **said: Any) -> None:
        """Tell the launcher something."""
        records.send(json.dumps(said))

    def wait_for(self, name: str) -> Any:
        """Return what the launcher says under this name."""
        while True:
            said = self._messages.get()
            if name in said:
                return said[name]

    def answer(self, name: str, reply: Callable[[Any], dict[str, Any]], until: str) -> Any:
        """Reply to each message of this name until another one comes, and return that."""
        while True:
            said = self._messages.get()
            if until in said:
                return said[until]
            if name in said:
                self.say(**reply(said[name]))

    def obey_shares(self, obey: Callable[[MemoryShare], None]) -> None:
        """Call `obey` with the newest share of the memory, and with each that comes from now on."""
        self._obey = obey
        if self._share is not None:
            obey(self._share)

    def wake_others(self) -> None:
        """As the first rank: have the others go on listening to it."""
        self.say(**{wire.WAKE: True})

    def until_woken(self) -> None:
        """As another rank: wait for that."""
        self._woken.wait()
        self._woken.clear()

    def _beat(self) -> None:
        while True:
            self.say(**{wire.ALIVE: memory()})
            threading.Event().wait(wire.BEAT_S)

    def _listen(self) -> None:
        while (text := self._next_line()) is not None:
            try:
                self._heard(wire.parse(text))
            except Exception as error:
                records.say(f"a message of the launcher's was not understood: {records.describe(error)}")
        _end()

    def _heard(self, said: dict[str, Any]) -> None:
        if wire.WAKE in said:
            self._woken.set()
        elif wire.SHARE in said:
            self._share = MemoryShare(**said[wire.SHARE])
            self._obey(self._share)
        elif said:
            self._messages.put(said)

    def _next_line(self) -> bytes | None:
        """Return the next line; None at the end, or after too long a silence."""
        while b"\n" not in self._held:
            ready, _, _ = select.select([self._in], [], [], wire.SILENCE_S)
            piece = os.read(self._in, 65536) if ready else b""
            if not piece or len(self._held) > wire.MAX_LINE:
                return None
            self._held += piece
        text, _, self._held = self._held.partition(b"\n")
        return text


def memory() -> int:
    """Return how many bytes this process takes: what is resident, or what mlx has allocated if that is more.

    On a Mac the latter is not part of the former.
    """
    import psutil

    mx: Any = sys.modules.get("mlx.core")
    ours = getattr(mx, "get_active_memory", None)  # still missing while it is imported
    allocated = mx.get_active_memory() + mx.get_cache_memory() if ours else 0
    return max(psutil.Process().memory_info().rss, allocated)


def _end() -> NoReturn:
    release.save_nothing()
    release.give_back()
    os._exit(EXIT_ORPHANED)
