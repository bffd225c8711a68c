"""All machines that can answer, and where each request goes.

For the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from draftd import clock
from draftd.peer_tables import MAX_PEERS, PeerTable
from draftd.peers.condition import Failed, Out, Well
from draftd.peers.load_report import Known, LoadedModel
from draftd.peers.machines import Machine, Peer
from draftd.peers.measures import ANSWER_TOKENS
from draftd.peers.peer_models import PeerModel, models_of
from draftd.peers.prefixes import Prompt
from draftd.peers.routing import HERE, Demand, best

MAX_WAIT = 10.0  # seconds that a request waits for a peer to be back, as for a worker that restarts
ASKING = 1.0  # seconds in which a peer that answers at all has answered


class Fleet:
    """`on_change` is called when the models of the peers, or a peer's condition, have changed."""

    def __init__(self, tables: Sequence[PeerTable], on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._changed = asyncio.Event()
        self.id = secrets.token_hex(8)  # by it the daemon recognizes itself among its peers
        self.here = Machine()
        self.peers = [Peer(table, self._has_changed) for table in tables]

    def _has_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()

    def add(self, table: PeerTable, known: Known) -> Peer | Failed:
        """A peer that was found, and has said what it has; or why it is not made one."""
        if already := self.known_already(known):
            return already
        if any(peer.name == table.name for peer in self.peers):
            return Failed("there is a peer of that name already", lasting=True)
        if len(self.peers) >= MAX_PEERS:
            return Failed(f"there are {MAX_PEERS} peers already", lasting=True)
        peer = Peer(table, self._has_changed, found=True)
        self.peers.append(peer)
        peer.reported(known)
        return peer

    def known_already(self, known: Known, peer: Peer | None = None) -> Failed | None:
        """Why a machine that said this is not used: it is this one, or one that answers under another name too.
        `peer` is what it is here, and comes after those that stand before it in the fleet; None: it is none yet.
        """
        if not known.id:
            return None
        if known.id == self.id:
            return Failed("it is this daemon itself", lasting=True)
        before = self.peers[: self.peers.index(peer)] if peer in self.peers else self.peers
        for other in before:
            if other.known.id == known.id and isinstance(other.condition, Well):
                return Failed(f"it is the same daemon as the peer {other.name}", lasting=True)
        return None

    def remove(self, peer: Peer) -> None:
        """It is gone, with what was known of it."""
        self.peers.remove(peer)
        self._has_changed()

    def models(self) -> dict[str, PeerModel]:
        """The models that peers have, by name. Those of one that is left out stay: it may be back in a moment."""
        return models_of({peer.name: peer.known for peer in self.peers})

    def choose(
        self, model: str, prompt: Prompt, here: LoadedModel | None, tried: Collection[str]
    ) -> Machine | None:
        """The machine for a request, of those that have not been tried; None if there is none. `here` is what this
        machine has to do for the model, None if it does not take requests for it.
        """
        now = time.monotonic()
        machines: dict[str, tuple[Machine, LoadedModel]] = {}
        if here is not None and HERE not in tried:
            machines[HERE] = (self.here, here)
        for peer in self.peers:
            if peer.name not in tried and (load := peer.load(model, now)) is not None:
                machines[peer.name] = (peer, load)
        if not machines:
            return None
        places = [machine.place(load, prompt) for machine, load in machines.values()]
        demand = self._demand(model, prompt, [machine for machine, _ in machines.values()])
        return machines[best(places, demand).name][0]

    def _demand(self, model: str, prompt: Prompt, machines: Sequence[Machine]) -> Demand:
        known = [machine.served(model) for machine in machines]
        answers = [one.measures.answer for one in known if one.measures.answer]
        tokens = prompt.size / max(one.bytes_per_token for one in known)
        return Demand(tokens, sum(answers) / len(answers) if answers else ANSWER_TOKENS)

    async def until_back(self, model: str) -> bool:
        """Wait for the next answer of a peer that has the model, if one will be asked soon; returns whether one now
        takes requests for it.
        """
        now = time.monotonic()
        deadline = min(now + MAX_WAIT, self._asked_again(model) + ASKING)
        while (left := deadline - time.monotonic()) > 0 and self._asked_again(model) < deadline:
            changed = self._changed
            with suppress(TimeoutError):
                async with clock.limit(left):
                    await changed.wait()
            if any(peer.load(model, time.monotonic()) for peer in self.peers):
                return True
        return False

    def _asked_again(self, model: str) -> float:
        """When the next peer that has the model is asked again, if it is left out (monotonic seconds)."""
        having = [peer.condition for peer in self.peers if model in peer.known.models]
        return min((condition.due for condition in having if isinstance(condition, Out)), default=math.inf)

    def why_nobody(self, model: str) -> tuple[str, float]:
        """Why no peer takes a request for a model, and the seconds until one is asked again."""
        now = time.monotonic()
        having = [peer for peer in self.peers if model in peer.known.models]
        reasons = [f"{peer.name}: {_reason(peer, model)}" for peer in having]
        due = self._asked_again(model)
        return "; ".join(reasons) or "none has it any more", max(1.0, due - now) if math.isfinite(
            due
        ) else 1.0


def _reason(peer: Peer, model: str) -> str:
    if isinstance(peer.condition, Out):
        return peer.condition.reason
    told = peer.known.models[model]
    return "is full" if told.serves else f"its worker is {told.state}"
