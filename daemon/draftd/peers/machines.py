"""The machines that can answer: this one and its peers, and what each is believed to hold and to do.

For the event loop's thread only. Nothing here waits or asks anybody.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import random

import structlog

from draftd.peer_tables import PeerTable
from draftd.peers.condition import Answered, Condition, Event, Failed, New, Out, Well, step
from draftd.peers.load_report import Known, LoadedModel
from draftd.peers.measures import BYTES_PER_TOKEN, Figures, Measures, mean
from draftd.peers.prefixes import BLOCK, Prompt, Remembered
from draftd.peers.routing import HERE, Place

SLEEPERS_START = 20.0  # seconds that a sleeping model takes to load, where nobody knows
MIN_SURPRISE = 4  # blocks of a prompt: fewer that are missing from a cache say nothing
OUTCOMES = ("answered", "refused", "failed", "left")  # of a request; the last: its client left, or we stopped
MAX_HELD = 5.0  # seconds that a place is left out for having said that it is full

log = structlog.get_logger("peers")


@dataclass(slots=True)
class _Served:
    """What is known of how one model is served at one machine."""

    remembered: Remembered = field(default_factory=Remembered)
    measures: Measures = field(default_factory=Measures)
    bytes_per_token: float = BYTES_PER_TOKEN


class Machine:
    """A machine that answers: what it has been sent, and how it did. It is this one, unless it is a Peer."""

    def __init__(self, name: str = HERE, weight: float = 1.0) -> None:
        self.name = name
        self.weight = weight
        self.given = 0
        self._served: dict[str, _Served] = {}

    def served(self, model: str) -> _Served:
        """What is known of it for a model."""
        return self._served.setdefault(model, _Served())

    def place(self, load: LoadedModel, prompt: Prompt) -> Place:
        """The machine as a place for a prompt, with what it has to do now."""
        known = self.served(load.name)
        return Place(
            name=self.name,
            weight=self.weight,
            open=load.open,
            slots=load.slots,
            start=0.0 if load.is_up else load.start or SLEEPERS_START,
            warm=known.remembered.shared(prompt.chain) * BLOCK / known.bytes_per_token,
            given=self.given,
            reads=known.measures.reads,
            writes=known.measures.writes,
            takes=load.takes or known.measures.takes,
        )

    def learn(self, model: str, prompt: Prompt, figures: Figures, *, tells_cached: bool) -> None:
        """It has answered. `tells_cached` says whether it told how much of the prompt was cached."""
        known = self.served(model)
        known.measures.add(figures)
        if figures.prompt_tokens:
            known.bytes_per_token = mean(known.bytes_per_token, max(0.5, prompt.size / figures.prompt_tokens))
        shared = known.remembered.shared(prompt.chain)
        had = figures.cached_tokens * known.bytes_per_token / BLOCK
        if tells_cached and shared >= MIN_SURPRISE and had < shared / 2:
            known.remembered.forget(prompt.chain, int(had))
        known.remembered.add(prompt.chain)

    def forget_prompts(self) -> None:
        """It has been started again."""
        for served in self._served.values():
            served.remembered.clear()


class Peer(Machine):
    """Another server. `on_change` is called when its condition or its models have changed; `failed` with each
    failure after which it is left out. It was `found`, or else stands in the settings.
    """

    def __init__(self, table: PeerTable, on_change: Callable[[], None], *, found: bool = False) -> None:
        super().__init__(table.name, table.weight)
        self.found = found
        self.table = table
        self._on_change = on_change
        self.condition: Condition = New()
        self.known = Known(own=False, models={})
        self.outcomes: Counter[str] = Counter()
        self.used = -math.inf  # when it was last sent a request; `asked`: a question (monotonic seconds)
        self.asked = -math.inf
        self.last_failure: tuple[float, str] | None = None  # when (epoch seconds), and why
        self.leaves = False  # it gets no more requests, and is removed when it has answered those that it has
        self.news = asyncio.Event()  # for whoever asks it: its condition has changed
        self._open: Counter[str] = Counter()  # our requests there, by model
        self._others: Counter[str] = Counter()  # those of others, when it was asked last
        self._held: dict[str, float] = {}  # until when a model is left out (monotonic seconds)

    @property
    def open(self) -> int:
        """Our requests there."""
        return self._open.total()

    def open_for(self, model: str) -> int:
        """The requests for a model that it has: ours, and those of others when it was asked last."""
        return self._others[model] + self._open[model]

    def load(self, model: str, now: float) -> LoadedModel | None:
        """What a model has to do there now, with what we have sent since it was asked; None if it takes nothing."""
        told = self.known.models.get(model)
        if told is None or not told.serves or self._held.get(model, now) > now:
            return None
        if self.leaves or not isinstance(self.condition, Well):
            return None
        return LoadedModel(
            name=model,
            state=told.state,
            slots=told.slots,
            open=self.open_for(model),
            takes=told.takes,
            start=told.start,
        )

    def reported(self, known: Known) -> None:
        """It has said what it has."""
        if known.id != self.known.id:
            self.forget_prompts()
        before = {name: model.aliases for name, model in self.known.models.items()}
        self.known = known
        self._others = Counter(
            {name: max(0, model.open - self._open[name]) for name, model in known.models.items()}
        )
        if known.own:
            self._held.clear()  # its queues are known anew
        self._step(Answered())
        if before != {name: model.aliases for name, model in known.models.items()}:
            self._on_change()

    def answered(self) -> None:
        """It has begun to answer a request."""
        self._step(Answered())

    def failed(self, reason: str, *, lasting: bool = False) -> None:
        """A question or a request has failed: it is left out."""
        self.last_failure = (time.time(), reason)
        self._step(Failed(reason, lasting))

    def leave_out(self, model: str, seconds: float | None) -> None:
        """It takes no request for a model now; `seconds`: when to try again, if it said so."""
        self._held[model] = time.monotonic() + min(seconds or 1.0, MAX_HELD)

    @contextmanager
    def serves(self, model: str) -> Iterator[None]:
        """While a request of ours is there."""
        self._open[model] += 1
        self.given += 1
        self.used = time.monotonic()
        try:
            yield
        finally:
            self._open[model] -= 1

    def _step(self, event: Event) -> None:
        before = self.condition
        self.condition = step(before, event, time.monotonic(), random())
        if self.condition == before:
            return
        if isinstance(self.condition, Out) and getattr(before, "reason", None) != self.condition.reason:
            log.warning("a peer is left out", peer=self.name, reason=self.condition.reason)
        elif isinstance(self.condition, Well) and not isinstance(before, Well):
            log.info("a peer answers", peer=self.name, models=len(self.known.models))
        self.news.set()
        self._on_change()
