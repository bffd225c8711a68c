"""What requests begin with: their system messages and tools, which a worker can read before they come.

There are two kinds: texts that the user has named (`[cache] preload`), and what most requests of a profile began
with lately. Those are kept in a file among the stored prompts, for the next daemon, and are as private as they are.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from draftd.errors import RequestError
from draftd.files import read_text, write_private
from draftd.profiles import Profile
from draftd.protocol import BEGINNINGS_FILE, PROFILE_HEADER, PromptStore
from draftd.web import json_codec
from draftd.web.request_body import prepare
from draftd.web.router import Router
from draftd.workers.beginning import Beginning

log = structlog.get_logger("daemon")

WINDOW = 32  # requests of a profile that count as lately
MIN_REQUESTS = 2  # that began alike: of one alone nobody knows whether another will follow
MIN_LENGTH, MAX_LENGTH = 1000, 2**20  # bytes: less is read at once when it comes, and more is left
MAX_KEPT = 2  # of each profile
SAVE_EVERY = 10.0  # seconds at least
ENDS = 64  # characters of a text by which it is known again, with its length


@dataclass(slots=True)
class Lately:
    """What one profile's last requests began with, each by a key, and as requests (empty: not worth reading)."""

    keys: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    known: dict[int, Beginning] = field(default_factory=dict)

    def add(self, key: int) -> None:
        """One more request."""
        self.keys.append(key)
        self.known = {other: one for other, one in self.known.items() if other in self.keys}

    def most_common(self) -> list[Beginning]:
        """What most began with, first what the most did."""
        counts = Counter(self.keys).most_common(MAX_KEPT)
        known = [self.known[key] for key, count in counts if count >= MIN_REQUESTS and key in self.known]
        return [one for one in known if one.payload]


class Beginnings:
    """See the module. `preload` names files; nothing is kept without a `store`. For the event loop's thread."""

    def __init__(self, router: Router, preload: Sequence[Path], store: PromptStore | None) -> None:
        self._router = router
        self._preload = preload
        self._file = Path(store.folder) / BEGINNINGS_FILE if store else None
        self._lately: dict[str, Lately] = {}
        self._kept = self._load()
        self._is_written = bool(self._kept)
        self._is_due = False  # a save
        self._saved = -SAVE_EVERY  # monotonic seconds

    def note(self, profile: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """A request to this profile has come, which begins with this: see Forward."""
        lately = self._lately.setdefault(profile, Lately())
        lately.add(key := key_of(body))
        if key not in lately.known:
            lately.known[key] = Beginning("what requests began with lately", _payload(body), headers)
        if common := lately.most_common():
            before, self._kept[profile] = self._kept.get(profile, ()), common
            if _payloads(before) != _payloads(common):
                self._save_soon()

    def of(self, profiles: Sequence[str]) -> list[Beginning]:
        """What requests to a worker that serves these will begin with, as far as that is known."""
        there = self._router.table.profiles.profiles
        ours = [profile for name in profiles if (profile := there.get(name)) and not profile.command]
        return [*self._named(ours), *self._learnt(ours)]

    def _named(self, profiles: Sequence[Profile]) -> Iterator[Beginning]:
        seen = set()
        for path in self._preload:
            for profile in profiles:
                if (made := self._from(path, profile)) and made[0] not in seen:
                    seen.add(made[0])
                    yield made[1]

    def _from(self, path: Path, profile: Profile) -> tuple[str, Beginning] | None:
        """A file's text as a request to this profile, which may add its own to it; and its messages."""
        try:
            messages = [{"role": "system", "content": read_text(path)}, {"role": "user", "content": ""}]
            prompt = self._router.table.profiles.prompt_of(profile)
            body = {"messages": messages, "max_tokens": 1}
            forward = prepare(body, "chat.completions", profile, prompt, profile.upstream_model, profile.name)
        except (OSError, UnicodeDecodeError, RequestError) as error:
            log.warning("a text cannot be read ahead", file=str(path), reason=str(error))
            return None
        made = forward.beginning or body
        return json.dumps(made["messages"]), Beginning(path.name, forward.payload, forward.headers)

    def _learnt(self, profiles: Sequence[Profile]) -> Iterator[Beginning]:
        for profile in profiles:
            for one in self._kept.get(profile.name, ()):
                yield Beginning(one.name, one.payload, {**one.headers, PROFILE_HEADER: profile.name})

    # --- the file --------------------------------------------------------------------------------------------

    def _load(self) -> dict[str, list[Beginning]]:
        if self._file is None:
            return {}
        try:
            told = json.loads(read_text(self._file, links=False))
            return {
                str(profile): [
                    Beginning(one["name"], one["payload"].encode(), one["headers"]) for one in some
                ]
                for profile, some in told.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            log.warning("what requests began with cannot be read", file=str(self._file), reason=str(error))
            return {}

    def _save_soon(self) -> None:
        """Not with each request: those of two agents may take turns."""
        if self._file is not None and not self._is_due:
            self._is_due = True
            later(max(0.0, self._saved + SAVE_EVERY - time.monotonic()), self._begin_save)

    def _begin_save(self) -> None:
        self._is_due, self._saved = False, time.monotonic()
        if self._is_written and self._file is not None and not self._file.exists():
            self._kept, self._is_written = {}, False  # the user has cleared it, and does not want it back
            self._lately.clear()
            return
        self._is_written = True
        there = self._router.table.profiles.profiles
        in_a_thread(self._save, {name: kept for name, kept in self._kept.items() if name in there})

    def _save(self, kept: Mapping[str, Sequence[Beginning]]) -> None:
        if self._file is None:
            return
        told = {
            profile: [
                {"name": one.name, "payload": one.payload.decode(), "headers": dict(one.headers)}
                for one in some
            ]
            for profile, some in kept.items()
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._file, json.dumps(told))
        except OSError as error:
            log.warning("what requests began with cannot be kept", file=str(self._file), reason=str(error))


def later(seconds: float, call: Callable[[], None]) -> None:
    """Call from the loop."""
    asyncio.get_running_loop().call_later(seconds, call)


def in_a_thread(call: Callable[..., None], *arguments: Any) -> None:
    """Files may take their time. Nobody waits for it."""
    asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def key_of(body: Mapping[str, Any]) -> int:
    """By which a beginning is known again: its texts are not read as a whole for that."""
    texts = (message["content"] for message in body["messages"])
    functions = (tool["function"] for tool in body.get("tools", ()))
    tools = ((one.get("name"), len(str(one.get("description") or ""))) for one in functions)
    return hash((tuple((len(text), text[:ENDS], text[-ENDS:]) for text in texts), tuple(tools)))


def _payloads(some: Sequence[Beginning]) -> set[bytes]:
    return {one.payload for one in some}


def _payload(body: Mapping[str, Any]) -> bytes:
    """The body as it is sent; empty if it is not worth it."""
    payload = json_codec.dumps(body)
    return payload if MIN_LENGTH <= len(payload) <= MAX_LENGTH else b""
