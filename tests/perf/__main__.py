"""Measure, print, and say which goals are reached. `--rounds N`: more rounds, steadier medians.

The same requests go to the daemon over both of its transports: a header that only one of them takes decides which.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.perf import servers
from tests.perf.load import Reply, run
from tests.perf.ports import PortBudget, budget
from tests.web.raw_http import NOT_FAST

MESSAGES = [{"role": "user", "content": "What is speculative decoding?"}]
SHORT: dict[str, Any] = {"model": "stub", "messages": MESSAGES, "max_tokens": 16}
LONG_STREAM = SHORT | {"stream": True, "max_tokens": 2000, "stream_options": {"include_usage": True}}
IDLE = 10.0  # seconds of rest in which the idle daemon's CPU time is taken
REQUESTS = 10_000  # after which the daemon's memory is read
MIN_SHARE = 0.2  # of what draftd adds that the fast transport has to save


def opencode() -> dict[str, Any]:
    """A request like OpenCode's: 9.6 KB of system text and 11 tools of 20 KB in all, as a stream."""
    fields = {f"field{n}": {"type": "string", "description": "What it is for. " * 12} for n in range(8)}
    parameters = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    tools = [
        {
            "type": "function",
            "function": {"name": f"tool{n}", "description": "x " * 50, "parameters": parameters},
        }
        for n in range(11)
    ]
    system = {"role": "system", "content": "You are a coding agent.\n" * 400}
    user = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    more = {"stream": True, "stream_options": {"include_usage": True}, "tools": tools, "tool_choice": "auto"}
    return SHORT | {"messages": [system, user]} | more


def milliseconds(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] * 1000


def latencies(replies: Sequence[Reply], seconds: float) -> dict[str, float]:
    totals = [reply.total for reply in replies]
    return {
        "p50 ms": milliseconds(totals, 50),
        "p99 ms": milliseconds(totals, 99),
        "/s": len(totals) / seconds,
    }


def first_event(replies: Sequence[Reply], seconds: float) -> dict[str, float]:
    return {"first event p50 ms": milliseconds([reply.first for reply in replies], 50)}


def events(replies: Sequence[Reply], seconds: float) -> dict[str, float]:
    return {"events/s": sum(reply.events for reply in replies) / seconds}


@dataclass(frozen=True)
class Case:
    name: str
    body: dict[str, Any]
    clients: int
    each: int
    figures: Callable[[Sequence[Reply], float], dict[str, float]]


CASES = (
    Case("1 client", SHORT, 1, 300, latencies),
    Case("32 clients", SHORT, 32, 30, latencies),
    Case("1 stream", SHORT | {"stream": True}, 1, 200, first_event),
    Case("30 KB with tools", opencode(), 1, 200, first_event),
    Case("16 streams", LONG_STREAM, 16, 1, events),
)


@dataclass(frozen=True)
class Variant:
    """Who is asked, at which port, and with which headers beside the usual ones."""

    name: str
    port: int
    headers: tuple[str, ...] = ()


async def within(
    ports: PortBudget | None, port: int, body: bytes, clients: int, each: int, *headers: str
) -> tuple[Sequence[Reply], float]:
    """As `load.run`, once there are ports for it."""
    if ports is None:
        return await run(port, body, clients, each, *headers)
    await ports.take(clients * each)
    answered = await run(port, body, clients, each, *headers)
    ports.given_back()
    return answered


async def measure(
    variants: Sequence[Variant], rounds: int, ports: PortBudget | None
) -> dict[tuple[str, str], dict[str, float]]:
    """The medians over the rounds of each (case, figure), by variant. In a round the variants take turns."""
    taken: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds + 1):  # the first is to warm up
        for case in CASES:
            body = json.dumps(case.body).encode()
            for one in variants:
                replies, seconds = await within(ports, one.port, body, case.clients, case.each, *one.headers)
                for figure, value in case.figures(replies, seconds).items():
                    if number:
                        taken[case.name, figure][one.name].append(value)
    return {key: {v: statistics.median(values) for v, values in row.items()} for key, row in taken.items()}


async def fill(port: int, count: int, ports: PortBudget | None) -> None:
    """Bring the requests that the daemon has answered to about `count`."""
    await within(ports, port, json.dumps(SHORT).encode(), 32, count // 32)


def idle_cpu(pid: int) -> float:
    """Percent of one core that the daemon uses at rest."""
    daemon = psutil.Process(pid)
    before = daemon.cpu_times()
    time.sleep(IDLE)
    after = daemon.cpu_times()
    return (after.user + after.system - before.user - before.system) / IDLE * 100


def show(table: dict[tuple[str, str], dict[str, float]], variants: Sequence[Variant]) -> None:
    titles = "".join(f"{one.name:>16}" for one in variants)
    print(f"{'':38}{titles}   draftd / nginx, added to direct")
    for (case, figure), row in table.items():
        line = f"{case + ', ' + figure:38}" + "".join(f"{row[one.name]:16.2f}" for one in variants)
        if figure.endswith("p50 ms") and "nginx" in row:
            ours, floor = row["draftd"] - row["direct"], row["nginx"] - row["direct"]
            line += f"   +{ours:.2f} / +{floor:.2f} ms = {ours / floor:.1f}"
        print(line)


def weigh_transports(table: dict[tuple[str, str], dict[str, float]]) -> None:
    """Say what the fast transport saves, as a share of what draftd adds to the stub over it."""
    print(
        f"\n{'added to the stub, median':38}{'fast (ms)':>16}{'aiohttp (ms)':>16}{'saved (ms)':>16}{'share':>8}"
    )
    for (case, figure), row in table.items():
        if not figure.endswith("p50 ms"):
            continue
        fast, other = row["draftd"] - row["direct"], row["draftd/aiohttp"] - row["direct"]
        share = (other - fast) / fast
        verdict = "" if share >= MIN_SHARE else f"   under {MIN_SHARE:.0%}: not worth its lines here"
        name = f"{case}, {figure}"
        print(f"{name:38}{fast:16.3f}{other:16.3f}{other - fast:16.3f}{share:8.0%}{verdict}")
    print()


def judge(table: dict[tuple[str, str], dict[str, float]], cpu: float, rss: float) -> None:
    p50 = table["1 client", "p50 ms"]
    added = p50["draftd"] - p50["direct"]
    goals = [("added median, 1 client (ms)", added, 0.40, True)]
    if "nginx" in p50:
        goals += [
            ("the same, as a multiple of nginx's", added / (p50["nginx"] - p50["direct"]), 3.5, True),
            ("events/s at 16 streams", *_pair(table["16 streams", "events/s"]), False),
        ]
    goals += [(f"memory after {REQUESTS} requests (MB)", rss, 90.0, True), ("idle CPU (%)", cpu, 0.5, True)]
    for name, value, goal, below in goals:
        reached = value <= goal if below else value >= goal
        sign = "<=" if below else ">="
        print(f"{name:38}{value:12.2f}   goal {sign} {goal:.2f}: {'reached' if reached else 'NOT reached'}")


def _pair(row: dict[str, float]) -> tuple[float, float]:
    return row["draftd"], row["nginx"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user when we are root
        with servers.draftd(folder) as (pid, port, stub), servers.nginx(folder, stub) as floor:
            variants = [Variant("direct", stub)]
            if floor is None:
                print("nginx is not installed (Debian: nginx-light): no floor to compare with")
            else:
                variants.append(Variant("nginx", floor))
            variants += [Variant("draftd", port), Variant("draftd/aiohttp", port, (NOT_FAST,))]
            cpu = idle_cpu(pid)
            ports = budget()
            table = uvloop.run(measure(variants, rounds, ports))
            uvloop.run(fill(port, REQUESTS, ports))
            rss = psutil.Process(pid).memory_info().rss / 1e6
            print(
                f"{time.strftime('%Y-%m-%d')}, {psutil.cpu_count()} cores, {platform.machine()}, {rounds} rounds"
            )
            show(table, variants)
            weigh_transports(table)
            judge(table, cpu, rss)


if __name__ == "__main__":
    main()
