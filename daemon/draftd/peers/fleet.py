"""All machines that can answer, and where each request goes.

For the event loop's thread only.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from draftd.peer_tables import PeerTable
from draftd.peers.condition import New, Out
from draftd.peers.load_report import LoadedModel
from draftd.peers.machines import Machine, Peer
from draftd.peers.measures import ANSWER_TOKENS
from draftd.peers.peer_models import PeerModel, models_of
from draftd.peers.prefixes import Prompt
from draftd.peers.routing import HERE, Demand, order


class Fleet:
    """`on_change` is called when other models are there than before, or a peer's condition has changed."""

    def __init__(self, tables: Sequence[PeerTable], on_change: Callable[[], None]) -> None:
        self.id = secrets.token_hex(8)  # by which a peer that is this daemon itself is known
        self.here = Machine()
        self.peers = [Peer(table, on_change) for table in tables]

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
        best = order(places, self._demand(model, prompt, [machine for machine, _ in machines.values()]))[0]
        return machines[best.name][0]

    def _demand(self, model: str, prompt: Prompt, machines: Sequence[Machine]) -> Demand:
        known = [machine.served(model) for machine in machines]
        answers = [one.measures.answer for one in known if one.measures.answer]
        tokens = prompt.size / max(one.bytes_per_token for one in known)
        return Demand(tokens, sum(answers) / len(answers) if answers else ANSWER_TOKENS)

    def why_nobody(self, model: str) -> tuple[str, float]:
        """Why no peer takes a request for a model, and the seconds until one is asked again."""
        now = time.monotonic()
        having = [peer for peer in self.peers if model in peer.known.models]
        reasons = [f"{peer.name}: {_reason(peer, model)}" for peer in having]
        dues = [peer.condition.due - now for peer in having if isinstance(peer.condition, Out)]
        return "; ".join(reasons) or "none has it any more", max(1.0, min(dues, default=1.0))

    def status(self, wall: float) -> list[dict[str, Any]]:
        """The peers as `/api/status` has them; `wall` is now, in epoch seconds."""
        return [_status(peer, wall - time.monotonic()) for peer in self.peers]


def _reason(peer: Peer, model: str) -> str:
    if isinstance(peer.condition, Out):
        return peer.condition.reason
    told = peer.known.models[model]
    return "is full" if told.serves else f"its worker is {told.state}"


def _status(peer: Peer, epoch: float) -> dict[str, Any]:
    """`epoch` is when the monotonic clock was 0, in epoch seconds."""
    state = peer.condition
    out = state if isinstance(state, Out) else None
    return {
        "name": peer.name,
        "url": peer.table.url,
        "weight": peer.weight,
        "state": state.label,
        "reason": out.reason if out else "",
        "since": None if isinstance(state, New) else epoch + state.since,
        "due": epoch + out.due if out else None,
        "is_draftd": peer.known.own,
        "models": list(peer.known.models),
        "open": peer.open,
        "requests": dict(peer.outcomes),
        "tokens_per_second": _speeds(peer),
    }


def _speeds(peer: Peer) -> Mapping[str, float]:
    speeds = {name: peer.served(name).measures.writes for name in peer.known.models}
    return {name: round(speed, 1) for name, speed in speeds.items() if speed}
