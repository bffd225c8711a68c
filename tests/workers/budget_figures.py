"""`python -m tests.workers.budget_figures`: the budget beside plain LRU and fixed groups, on a simulated trace.

Twelve models of 2 to 18 GB on a machine that may give them 24 GB; 10,000 requests of people and agents that stay
with a model for a while, a third of them with a small one beside it, as for titles. A load takes 1.5 s and reads
2 GB a second. Nothing is loaded here, and nothing measured but the decisions.
"""

from __future__ import annotations

from functools import partial
from random import Random

from draftd.workers.budget import Decision, Holder, Waiter, decide
from tests.workers.test_budget import PATIENCE, Machine, Model

SIZES = (4, 2, 8, 5, 12, 2, 3, 15, 6, 4, 18, 9)  # GB, the most asked for first
BUDGET = 24
REQUESTS = 10_000
STREAMS = 3  # people and agents that work at the same time


class Budgeted(Machine):
    """What draftd does."""

    budget = BUDGET

    def load_seconds(self, model: Model) -> float:
        return 1.5 + model.size / 2

    def choose(self, holders: list[Holder], waiters: list[Waiter]) -> Decision:
        return decide(BUDGET, holders, waiters, self.now, PATIENCE)


class PlainLRU(Budgeted):
    """Idle ones leave at once, the least recently used first, until the first that waits fits."""

    def choose(self, holders: list[Holder], waiters: list[Waiter]) -> Decision:
        used, sleep = sum(one.size for one in holders), list[str]()
        for waiter in sorted(waiters, key=lambda one: one.since):
            if used + waiter.size <= BUDGET:
                return Decision(load=(waiter.name,))
            leaving = sum(one.size for one in holders if one.leaving)
            idle = sorted(
                (one for one in holders if not one.busy and not one.leaving), key=lambda one: one.last_used
            )
            while idle and used - leaving + waiter.size > BUDGET:
                sleep.append(idle[0].name)
                leaving += idle.pop(0).size
            break
        return Decision(sleep=tuple(sleep))


class FixedGroups(Budgeted):
    """One group of models that fit together is in memory at a time; others wait until nobody uses it."""

    def choose(self, holders: list[Holder], waiters: list[Waiter]) -> Decision:
        if not waiters:
            return Decision()
        first = min(waiters, key=lambda one: one.since)
        others = [one for one in holders if group(one.name) != group(first.name)]
        if not others:
            return Decision(load=(first.name,))
        if any(one.busy for one in others):
            return Decision()
        return Decision(sleep=tuple(one.name for one in others if not one.leaving))


def group(name: str) -> int:
    """Models in the order of their popularity fill one group after the other."""
    number, filled = 0, 0
    for other, size in enumerate(SIZES):
        if filled + size > BUDGET:
            number, filled = number + 1, 0
        filled += size
        if str(other) == name:
            return number
    raise KeyError(name)


def trace(seed: int) -> list[tuple[float, str, float]]:
    """(when, model, seconds) of each request, in no order."""
    dice, found = Random(seed), list[tuple[float, str, float]]()
    weights = [1 / (rank + 1) for rank in range(len(SIZES))]
    clocks = [0.0] * STREAMS
    while len(found) < REQUESTS:
        stream = clocks.index(min(clocks))
        [model] = dice.choices(range(len(SIZES)), weights)
        small = dice.choice((1, 5)) if dice.random() < 1 / 3 else None
        for _ in range(dice.randint(5, 40)):
            clocks[stream] += dice.expovariate(1 / 15)
            found.append((clocks[stream], str(model), dice.expovariate(1 / 8)))
            if small is not None and dice.random() < 0.3:
                found.append((clocks[stream], str(small), dice.expovariate(1 / 2)))
        clocks[stream] += dice.expovariate(1 / 120)
    return found[:REQUESTS]


def main() -> None:
    """Print the table of docs/measurements.md."""
    print("| | loads | GB read | mean wait | 95 % | 99 % | longest |\n|---|---|---|---|---|---|---|")
    for policy, name in ((Budgeted, "draftd"), (PlainLRU, "plain LRU"), (FixedGroups, "fixed groups")):
        machine = policy([Model(str(n), size, pinned=False) for n, size in enumerate(SIZES)])
        for when, model, seconds in trace(1):
            machine.at(when, partial(machine.ask, model, seconds))
        machine.run()
        waits = sorted(machine.waits)
        assert len(waits) == REQUESTS
        figures = sum(waits) / REQUESTS, waits[int(0.95 * REQUESTS)], waits[int(0.99 * REQUESTS)], waits[-1]
        told = " | ".join(f"{seconds:.1f} s" for seconds in figures)
        print(f"| {name} | {machine.loads:,} | {machine.read:,} | {told} |")


if __name__ == "__main__":
    main()
