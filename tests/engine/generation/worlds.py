"""Simulated machines and texts for draft policies: what rounds cost, and which draft tokens are kept."""

import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from draftd.engine.generation.choices import ALONE, MAX_LATE, REVIEW, Choice, Situation
from draftd.engine.generation.policy import DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

MAX_DRAFT = 8
MAX_LOOKUP = 64
SEEDS = (1, 2, 3)
SINGLE = 0.010  # seconds of a token of the target model alone
NOISE = 0.1  # of every time
STAIRS = ((1, 1.0), (4, 1.47), (6, 2.07), (8, 2.69), (10, 2.7), (32, 2.75), (64, 4.0), (640, 40.0))
"""Rows and their cost on an M4 Pro (facts of issue 15); between them it grows evenly."""


def stairs(rows: int) -> float:
    for (fewer, low), (more, high) in pairwise(STAIRS):
        if rows <= more:
            return low + (high - low) * (rows - fewer) / (more - fewer)
    raise ValueError(rows)


def slope(share: float) -> Callable[[int], float]:
    return lambda rows: 1 + share * (rows - 1)


@dataclass(frozen=True)
class Machine:
    """`draft` and `rows` are in tokens of the target model alone: a draft token, and a pass of so many rows.
    To read a token of the text takes the draft model `reading` of what drafting one takes.
    """

    draft: float
    rows: Callable[[int], float]
    reading: float = 0.06

    def seconds(self, choice: Choice) -> float:
        if choice.source == REVIEW:
            return SINGLE * self.draft * (1 + self.reading * choice.length)
        drafting = choice.length * self.draft if choice.source == MODEL_DRAFTER else 0.0
        return SINGLE * (drafting + self.rows(choice.length + 1))


MACHINES = {
    "rows cost little": Machine(0.10, slope(0.03)),
    "rows cost the same each": Machine(0.10, slope(0.15)),
    "rows cost stairs": Machine(0.10, stairs),
    "the second row is dear": Machine(0.05, lambda rows: 1.0 if rows == 1 else 1.8 + 0.04 * rows),
    "a dear draft": Machine(0.6, slope(0.1)),
    "a draft as dear as the target": Machine(1.0, slope(0.1)),
}

Found = tuple[int, float] | None  # tokens of a match, and how likely each token of it is to be kept


@dataclass
class World:
    """`kept` says how likely the model's draft tokens are to be kept after so many; `found` what lookups find."""

    machine: Machine
    kept: Callable[[int], float] = lambda _: 0.0
    found: Callable[[int, random.Random], Found] = lambda _, __: None
    model: int = MAX_DRAFT
    depth: int = 500
    cold: int = 500  # tokens of each prompt that the draft model has not read
    compiling: float = 1.0  # how much longer each choice takes the first time

    def speed(self, policy: DraftPolicy, tokens: int = 6000, requests: int = 3, seed: int = 1) -> float:
        """Return tokens per second of simulated time."""
        rng = random.Random(seed)
        self.choices: list[Choice] = []
        self.known: set[Choice] = set()
        self.made, self.seconds = 0, 0.0
        for _ in range(requests):
            policy.begin()
            end = self.made + tokens // requests
            alone, self.unread = 0, self.cold
            while self.made < end:
                found = self.found(self.made, rng)
                now = Situation(self.depth, end - self.made, model=self.model, unread=self.unread)
                if found:
                    now = replace(now, match=found[0], lookup=MAX_LOOKUP)
                choice = policy.choose(now)
                alone = self._perform(policy, choice, now, found, rng, alone)
        return self.made / self.seconds

    def _perform(
        self,
        policy: DraftPolicy,
        choice: Choice,
        now: Situation,
        found: Found,
        rng: random.Random,
        alone: int,
    ) -> int:
        """Do what was chosen; return how many tokens have come alone since the last draft."""
        self.choices.append(choice)
        if choice.source == MODEL_DRAFTER and self.unread > MAX_LATE:
            self._take(policy, Choice(REVIEW, self.unread), now, rng)
        made = self.made
        if choice.source == ALONE:
            self.made += 1
            if found:
                policy.judged(LOOKUP_DRAFTER, found[0], 1, int(rng.random() < found[1]))
        elif choice.source != REVIEW:
            share = found[1] if found and choice.source == LOOKUP_DRAFTER else self.kept(self.made)
            kept = next((n for n in range(choice.length) if rng.random() >= share), choice.length)
            policy.judged(choice.source, now.match, choice.length, kept)
            self.made += min(kept + 1, now.left)
        self._take(policy, choice, now, rng)
        if choice.source == REVIEW:
            policy.would_have_kept([self.kept(self.made)] * min(alone, 32))
        self.unread = 1 if choice.source in {MODEL_DRAFTER, REVIEW} else self.unread + self.made - made
        return alone + 1 if choice.source == ALONE else 0

    def _take(self, policy: DraftPolicy, choice: Choice, now: Situation, rng: random.Random) -> None:
        first = choice not in self.known
        self.known.add(choice)
        took = self.machine.seconds(choice) * rng.uniform(1 - NOISE, 1 + NOISE)
        took *= self.compiling if first else 1
        self.seconds += took
        policy.took(choice, now.depth, took)


def median_speed(make: Callable[[], World], tokens: int = 6000, requests: int = 3) -> float:
    """Return that of an adaptive policy."""
    return statistics.median(make().speed(DraftPolicy(), tokens, requests, seed=seed) for seed in SEEDS)


def rate(machine: Machine, share: float, source: str, length: int) -> float:
    """Return the tokens per second of drafts that are all as long."""
    if not length:
        return 1 / machine.seconds(Choice(ALONE))
    return sum(share**n for n in range(length + 1)) / machine.seconds(Choice(source, length))


def best(
    machine: Machine, share: float, source: str = MODEL_DRAFTER, lengths: Iterable[int] = range(MAX_DRAFT + 1)
) -> float:
    """Return the best rate that a fixed length has, none included."""
    return max(rate(machine, share, source, length) for length in (0, *lengths))
