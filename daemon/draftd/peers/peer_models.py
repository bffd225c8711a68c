"""The models that peers have, as models that this address offers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from draftd.peers.load_report import Known


@dataclass(frozen=True, slots=True)
class PeerModel:
    """A model that peers have. `own` says whether all of them are draftds. `peer` is the first that has it."""

    name: str
    aliases: tuple[str, ...]
    context: int | None
    own: bool
    peer: str

    @property
    def upstream_model(self) -> str:
        """What it is called there."""
        return self.name


def models_of(peers: Mapping[str, Known]) -> dict[str, PeerModel]:
    """The models of all peers, by name. Each has all aliases that it has anywhere, and the shortest context."""
    found: dict[str, PeerModel] = {}
    for peer, known in peers.items():
        for name, model in known.models.items():
            first = found.get(name) or PeerModel(name, (), None, True, peer)
            aliases = tuple(dict.fromkeys((*first.aliases, *model.aliases)))
            contexts = [context for context in (first.context, model.context) if context]
            found[name] = PeerModel(
                name, aliases, min(contexts, default=None), first.own and known.own, first.peer
            )
    return found
