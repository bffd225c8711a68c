"""The gain of several machines: `python -m tests.peers.figures [waits | throughput | caches]`, on an idle machine.

`waits` prints the tables of the simulation `queueing`. `throughput` asks 1, 2 and 3 daemons on this machine behind
one address, whose scripted workers take a twentieth of a second for a request and do one at a time: it measures the
passing on of requests, not a model's speed. `caches` holds conversations with real workers of the demo pair: it
measures which share of their prompts is not read again with one daemon for all of them, with two in turns, and with
two peers behind one address.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from draftd.demo import DRAFT, TARGET
from tests.harness import LIMIT, QUICK, Served, chat, fake, serving
from tests.peers.conftest import until
from tests.peers.queueing import table

CLIENTS, REQUESTS, WORK = 24, 600, 0.05  # WORK: seconds of a request
CONVERSATIONS, TURNS = 9, 6
NOTHING = {"here": fake(top="autostart = false")}


def waits() -> None:
    """The tables of the simulation: Macs of one speed, and every second one half as fast."""
    print(table((2, 4, 8, 16, 32), sessions=40, seed=1))
    print("\nevery second Mac half as fast:\n")
    print(table((2, 8, 32), sessions=40, seed=1, speeds=(1.0, 0.5)))


@asynccontextmanager
async def machines(folder: Path, count: int, profile: str) -> AsyncIterator[tuple[Served, list[Served]]]:
    """A daemon without a worker of its own, and its peers."""
    async with AsyncExitStack() as stack:
        peers = []
        for number in range(count):
            (own := folder / f"{count}-{number}").mkdir()
            peers.append(await stack.enter_async_context(serving(own, {"m": profile}, ready_limit=120)))
        (own := folder / f"{count}-front").mkdir()
        tables = [{"url": peer.url} for peer in peers]
        front = await stack.enter_async_context(serving(own, NOTHING, peers=tables))
        async with asyncio.timeout(LIMIT):
            for peer in peers:
                await until(front, peer.daemon.settings.port, "well")
        yield front, peers


async def throughput(folder: Path) -> None:
    """Requests per second and how long they take, closed loop."""
    print("| peers | requests/s | p50 | p99 | CPU of this process for a request |\n|---|---|---|---|---|")
    profile = fake(tables=f"{QUICK}[limits]\nconcurrency = 1\nqueue = 64\n")
    for count in (1, 2, 3):
        async with machines(folder, count, profile) as (front, _):
            taken: list[float] = []
            numbers = iter(range(REQUESTS))

            async def client(front: Served = front, taken: list[float] = taken) -> None:
                for _ in numbers:  # noqa: B023 - all clients of a round share it
                    began = time.perf_counter()
                    answer = await front.ask("m", f"[[wait {WORK}]]")
                    assert answer.status == 200, answer.text
                    taken.append(time.perf_counter() - began)

            began, cpu = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CLIENTS):
                    tasks.create_task(client())
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            taken.sort()
            p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
            rate, each = REQUESTS / seconds, cpu / REQUESTS * 1e3
            print(f"| {count} | {rate:.1f} | {p50:.2f} s | {p99:.2f} s | {each:.1f} ms |")


async def caches(folder: Path) -> None:
    """The share of prompt tokens that were not read again."""
    profile = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\n'
    async with machines(folder, 2, profile) as (front, peers):
        turns = itertools.cycle(peers)
        ways: dict[str, Callable[[], Served]] = {
            "one machine": lambda: peers[0],
            "two, in turns": lambda: next(turns),
            "two, as peers": lambda: front,
        }
        print("| | prompt tokens | not read again |\n|---|---|---|")
        for way, served in ways.items():
            prompt, cached = await conversations(way, served)
            print(f"| {way} | {prompt} | {cached / prompt:.1%} |")


async def conversations(way: str, served: Callable[[], Served]) -> tuple[int, int]:
    """Hold some conversations at once, a turn of each in turn; returns prompt tokens, and how many were cached."""
    prompt = cached = 0

    def said(number: int) -> Awaitable[tuple[int, int]]:
        return _turn(served(), histories[number])

    histories: list[list[dict[str, str]]] = [[] for _ in range(CONVERSATIONS)]
    for turn in range(TURNS):
        for number, history in enumerate(histories):
            text = f"{way}, conversation {number}, turn {turn}. " + f"What is a draft model {number}? " * 40
            history.append({"role": "user", "content": text})
            new, old = await said(number)
            prompt, cached = prompt + new, cached + old
    return prompt, cached


async def _turn(served: Served, history: list[dict[str, str]]) -> tuple[int, int]:
    body = {**chat(model="m", max_tokens=16), "messages": history}
    answer = (await served.post("/v1/chat/completions", body)).json
    history.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"] or ""})
    usage = answer["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def main(wanted: str) -> None:
    """Measure one of them, and print."""
    if wanted == "waits":
        waits()
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run({"throughput": throughput, "caches": caches}[wanted](Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
