"""Prompt caches that outlive their engine.

Theory of operation. Three threads meet here, and each keeps to its part:

1. *The thread that generates* owns the prompt cache and all of mlx. After each store into the cache it notes the
   key. When no request has been at work for QUIET_S, it takes one noted entry after the other, newest first,
   computes its arrays piece by piece, at most PIECE bytes at a time, and hands their memory to the writer. So a
   request that comes waits for one piece at most, and no second copy of a large entry is ever in memory. After an
   entry it rests, the longer the larger that was: a chat of many turns does not wear the disk out.
2. *The writer* is a thread that writes what it is handed, in order, and touches nothing of mlx.
3. *The main thread* is told of SIGTERM. It waits for the other two to save what was noted, for as long as the
   daemon allows; while a request is at work it waits for BUSY_S only, since that request is cut off anyway.

Before a prompt is looked for in memory, `bring` looks whether a file would save more of it, and puts that into the
memory's cache; what can be taken from an entry is decided there, by the same rules as for all others. The layers
come back bit by bit as they were, so no text changes. At the start nothing is read at all. The thread that
generates reads the file itself, and all who are at work wait for it: so a large one is left while there is anybody
else. Room is made before, for what is read of the file and for the layers that it becomes: both are in memory at
once.

Prompts of less than MIN_TOKENS are not stored, and files are not read for a gain of less: to read the tokens
themselves is as quick. Whatever goes wrong here is said, and disturbs neither requests nor the end.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from draftd.engine.prompt_cache import TruePromptCache, fewest
from draftd.engine.stored_prompts.choice import Stored, as_bytes, as_tokens
from draftd.engine.stored_prompts.files import NewFile, StoredFiles
from draftd.engine.stored_prompts.layers import (
    UnstorableError,
    arrays_in,
    bytes_of,
    put_together,
    shape_of,
    taken_apart,
)
from draftd.protocol import RESTORED, PromptStore

MIN_TOKENS = 256
QUIET_S = 5.0  # an agent's next request usually comes sooner, and makes what was stored superfluous
PIECE = 64 * 2**20  # bytes
RATE = 2 * 10**6  # bytes a second that may be written in the long run, for the disk's sake
MAX_NOTED = 32  # the prompt cache holds ten, unless a flag says otherwise
# Bytes of a file that is read while others are at work. Reading it, its check sum and the copy are reckoned at a
# gigabyte a second together, not measured: others wait for half a second, once. The prompt itself would take turns
# from them for longer than that.
MAX_BROUGHT_IN_COMPANY = 512 * 2**20
BUSY_S = 0.5  # the last token is out before its request is over
LOOK_S = 0.02


class Store:
    """Keeps the entries of one prompt cache, for the models of one key. See the module.

    `say` gets what a person should know, `report` the outcome of each file: STORED, RESTORED or REFUSED.
    """

    def __init__(
        self,
        place: PromptStore,
        identity: str,
        model: tuple[Any, ...],
        say: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self._files = StoredFiles(Path(place.folder), place.max_bytes, identity, say, report)
        self._model = model
        self._seconds = place.seconds
        self._say = say
        self._report = report
        self._noted: dict[tuple[int, ...], str] = {}  # the kind of each entry that is not in a file yet
        self._saving: Iterator[int] | None = None
        self._idle_since: float | None = None
        self._handed = 0  # bytes of the entry that is being saved
        self._rests_until = 0.0
        self._ending = threading.Event()
        self._settled = threading.Event()
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        self._files.prepare()
        threading.Thread(target=self._write, name="stored prompts", daemon=True).start()

    # --- the thread that generates -------------------------------------------------------------------------

    def note(self, model: Any, tokens: list[int], kind: str) -> None:
        """An entry was put into the prompt cache."""
        if model == self._model and _is_worth_it(tokens):
            self._noted.pop(key := tuple(tokens), None)
            self._noted[key] = kind
            if len(self._noted) > MAX_NOTED:
                del self._noted[next(iter(self._noted))]

    def bring(
        self, cache: TruePromptCache, model: Any, tokens: list[int], known: int, at_work: int | None
    ) -> None:
        """Put the entry from a file into the cache if it saves more of a prompt than the `known` tokens there.

        `at_work`: the bytes that the caches of other requests take; None where there are no others.
        """
        if model != self._model or not _is_worth_it(tokens):
            return
        try:
            self._bring(cache, as_bytes(tokens), known, at_work)
        except Exception as error:
            self._say(f"stored prompts could not be used: {error!r}")

    def busy(self) -> None:
        """A request was taken."""
        self._idle_since = None

    def idle(self, cache: TruePromptCache) -> None:
        """No request is at work: save a piece of what was noted, if it has been quiet for long enough."""
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if self._ending.is_set():
            while self._noted or self._saving is not None:
                self._save(cache)
                self._jobs.join()
            if not self._settled.is_set():
                self._jobs.put(self._settled.set)
        elif now >= max(self._idle_since + QUIET_S, self._rests_until) and self._jobs.empty():
            self._save(cache)

    def _bring(self, cache: TruePromptCache, prompt: bytes, known: int, at_work: int | None) -> None:
        room = cache.max_bytes - (at_work or 0)
        limit = room if at_work is None else min(room, MAX_BROUGHT_IN_COMPANY)
        for name, stored in self._worth_reading(prompt, known, limit):
            cache.trim_to(n_bytes=max(0, room - 2 * stored.size))
            if (found := self._files.read(name)) is None:
                continue
            header, data = found
            try:
                layers = put_together(header["layers"], list(arrays_in(header["arrays"], data)))
                kind = header["kind"]
            except (ValueError, KeyError, TypeError) as error:
                self._files.discard(name, error)
                continue
            cache.restore(self._model, as_tokens(stored.tokens), layers, kind)
            self._report(RESTORED)
            return

    def _worth_reading(self, prompt: bytes, known: int, limit: int) -> list[tuple[str, Stored]]:
        """Return the files of at most `limit` bytes that save more than `known` tokens, most first."""
        gains = [
            (gain, name, stored)
            for name, stored in self._files.look().items()
            if stored.size <= limit and (gain := stored.gain(prompt)) >= known + MIN_TOKENS
        ]
        gains.sort(key=itemgetter(0), reverse=True)
        return [(name, stored) for _, name, stored in gains]

    def _save(self, cache: TruePromptCache) -> None:
        """Go on with an entry, or begin with the newest."""
        try:
            if self._saving is None and self._noted:
                tokens, kind = self._noted.popitem()
                self._saving = self._pieces(cache, list(tokens), kind)
            handed = 0
            while self._saving is not None and handed < PIECE:
                if (size := next(self._saving, None)) is None:
                    self._rest()
                else:
                    handed += size
                    self._handed += size
        except UnstorableError as error:
            self._rest()
            self._say(f"a prompt cache could not be stored: it holds {error}")
        except Exception as error:
            self._rest()
            self._say(f"a prompt cache could not be stored: {error!r}")

    def _rest(self) -> None:
        """No entry is being saved any more: rest for what was written of it, whether it came to its end or not."""
        self._saving = None
        self._rests_until = time.monotonic() + self._handed / RATE
        self._handed = 0

    def _pieces(self, cache: TruePromptCache, tokens: list[int], kind: str) -> Iterator[int]:
        """Hand one entry to the writer, piece by piece; yield the bytes of each."""
        layers = cache.layers_of(self._model, tokens)
        if layers is None:
            return  # it was superseded or evicted meanwhile
        reach = fewest(layers, len(tokens))
        told, arrays = taken_apart(layers)
        key, size = as_bytes(tokens), sum(array.nbytes for array in arrays)
        others, stored = self._files.look(), Stored(key, reach, size)
        if size > self._files.max_bytes or any(other.covers(stored) for other in others.values()):
            return
        header = {"reach": reach, "kind": kind, "layers": told, "arrays": [shape_of(one) for one in arrays]}
        header |= {"model": self._model[0], "draft_model": self._model[-1]}
        superseded = [name for name, other in others.items() if stored.covers(other)]
        file = self._files.write(header, key, size, superseded)
        self._jobs.put(file.begin)
        try:
            yield from self._arrays(file, arrays)
        except Exception:
            self._jobs.put(file.abandon)
            raise
        self._jobs.put(file.finish)

    def _arrays(self, file: NewFile, arrays: list[Any]) -> Iterator[int]:
        arrays.reverse()
        while arrays:
            piece = bytes_of(arrays.pop())
            self._jobs.put(partial(file.append, piece))
            yield piece.nbytes

    # --- the others ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception as error:
                self._say(f"a prompt cache could not be stored: {error!r}")
            finally:
                del job  # and the memory that it holds
                self._jobs.task_done()

    def finish(self, is_hurried: Callable[[], bool]) -> None:
        """The process is about to end: return when all is saved, or the time is over. For the main thread."""
        began = time.monotonic()
        if self._idle_since is not None and not (self._noted or self._saving or self._jobs.unfinished_tasks):
            return
        self._ending.set()
        while not self._settled.wait(LOOK_S):
            limit = self._seconds if self._idle_since is not None else min(BUSY_S, self._seconds)
            if time.monotonic() - began >= limit or is_hurried():
                return


def _is_worth_it(tokens: list[int]) -> bool:
    """Whether a prompt is long enough, and has no images: the names that stand for them are below zero."""
    return len(tokens) >= MIN_TOKENS and min(tokens) >= 0
