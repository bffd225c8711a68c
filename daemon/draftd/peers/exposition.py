"""The peers for Prometheus: read at each scrape. Labels are their names, which come from the settings."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from draftd.peers.condition import Well
from draftd.peers.fleet import Fleet
from draftd.peers.machines import OUTCOMES


class PeerCollector(Collector):
    """All series of a fleet's peers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("draftd_peer_up", "1 if the peer takes requests, else 0.", labels=("peer",))
        at_work = GaugeMetricFamily(
            "draftd_peer_open_requests", "Requests that this daemon has there now.", labels=("peer",)
        )
        requests = CounterMetricFamily(
            "draftd_peer_requests_total", "Requests that were sent there.", labels=("peer", "outcome")
        )
        for peer in self._fleet.peers:
            up.add_metric([peer.name], isinstance(peer.condition, Well))
            at_work.add_metric([peer.name], peer.open)
            for outcome in OUTCOMES:
                requests.add_metric([peer.name, outcome], peer.outcomes[outcome])
        yield from (up, at_work, requests)
