"""A simulation of 1 to 32 Macs behind one address: how long clients wait under three policies, and what caches
save.

The machines are simulated; the daemon's own code (`routing.best`, `machines.Machine`) chooses between them.

- *Machines.* A Mac reads 500 tokens of a prompt per second and writes 30. It works on four requests at once, each
  of which slows the others down by half of its own time; further ones wait in order. Its prompt cache holds 120,000
  tokens of whole conversations, and forgets the least recently used.
- *Trace.* Sessions of agents, as in the recordings of `tests/sessions`: ten turns, the first with a system prompt
  and tools that all sessions of an agent share, each turn with all before it and something new. The next turn
  follows some seconds after the answer, when a tool has run. Sessions come at random, by a seed, and as many per
  Mac however many Macs there are, so that one alone is busy for half of the time.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from draftd.peers.load_report import LoadedModel
from draftd.peers.machines import Machine
from draftd.peers.measures import ANSWER_TOKENS, Figures
from draftd.peers.prefixes import BLOCK, Prompt
from draftd.peers.routing import Demand, best, crowding

READS, WRITES, SLOTS = 500.0, 30.0, 4
CACHE = 120_000  # tokens
BYTES = 4  # of a token
TOKENS = BLOCK // BYTES  # of a block
AGENTS = {
    "claude": 16_000,
    "codex": 8_000,
    "opencode": 9_000,
}  # tokens that all sessions of an agent begin with
TURNS = 10
NEW, ANSWER, PAUSE = (
    600.0,
    150.0,
    8.0,
)  # tokens that a turn adds, of an answer; seconds until the next turn: means
EVERY = 100.0  # seconds between the sessions of a Mac, as a mean
MODEL = "m"


@dataclass(eq=False)
class Session:
    """A conversation. `chain` are its blocks so far, those of the agent first; `size` its tokens."""

    number: int
    agent: str
    size: int
    turns: int = TURNS
    chain: tuple[int, ...] = ()

    def grow(self, tokens: int) -> None:
        """Append more text."""
        self.size += tokens
        shared = AGENTS[self.agent] // TOKENS
        self.chain = tuple(
            hash((self.agent, at)) if at < shared else hash((self.number, at))
            for at in range(self.size // TOKENS)
        )


@dataclass(eq=False)
class Job:
    """A request: `left` are the seconds that it would take alone, `reading` those of them until its first token."""

    session: Session
    came: float
    answer: int
    prompt: int = 0
    cached: int = 0
    left: float = 0.0
    reading: float = 0.0
    before: int = 0
    began: float = 0.0
    first: float | None = None


class Mac:
    """A machine that shares its time between up to four jobs."""

    def __init__(self, number: int, speed: float = 1.0) -> None:
        self.machine = Machine(f"mac{number:02}")
        self.speed = speed
        self.active: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.cache: OrderedDict[int, Session] = OrderedDict()
        self.kept: dict[int, int] = {}  # tokens of a session that are in the cache
        self.busy = 0.0

    @property
    def open(self) -> int:
        return len(self.active) + len(self.waiting)

    def rate(self) -> float:
        """How much of a job is done in a second."""
        return self.speed / crowding(len(self.active) - 1, SLOTS) if self.active else 0.0

    def take(self, job: Job, now: float) -> None:
        self.machine.given += 1
        job.before = self.open
        self.waiting.append(job)
        self.begin(now)

    def begin(self, now: float) -> None:
        """Start the jobs for which there is room."""
        while self.waiting and len(self.active) < SLOTS:
            job = self.waiting.popleft()
            job.cached, job.began = self.cached(job.session), now
            job.reading = (job.prompt - job.cached) / READS
            job.left = job.reading + job.answer / WRITES
            self.active.append(job)

    def cached(self, session: Session) -> int:
        """The tokens of its prompt that are here: of the session itself, or of another of the same agent."""
        if session.number in self.kept:
            return self.kept[session.number]
        alike = any(other.agent == session.agent for other in self.cache.values())
        return AGENTS[session.agent] if alike else 0

    def keep(self, session: Session) -> None:
        self.kept[session.number] = session.size
        self.cache[session.number] = session
        self.cache.move_to_end(session.number)
        while sum(self.kept.values()) > CACHE and len(self.cache) > 1:
            number, _ = self.cache.popitem(last=False)
            del self.kept[number]

    def advance(self, seconds: float, now: float) -> list[Job]:
        """Let time pass; returns the jobs that have ended."""
        rate = self.rate()
        self.busy += seconds if self.active else 0.0
        for job in self.active:
            job.left -= seconds * rate
            job.reading -= seconds * rate
            if job.reading <= 1e-9 and job.first is None:
                job.first = now
        ended = [job for job in self.active if job.left <= 1e-9]
        self.active = [job for job in self.active if job.left > 1e-9]
        return ended

    def next(self) -> float:
        """The seconds until something happens here by itself."""
        rate = self.rate()
        steps = [job.reading if job.reading > 1e-9 else job.left for job in self.active]
        return min(steps) / rate if steps else float("inf")


Policy = Callable[[Sequence[Mac], Job], Mac]


def round_robin() -> Policy:
    turn = iter(range(10**9))
    return lambda macs, _: macs[next(turn) % len(macs)]


def least_queue() -> Policy:
    return lambda macs, _: min(macs, key=lambda mac: (mac.open, mac.machine.given))


def ours() -> Policy:
    def choose(macs: Sequence[Mac], job: Job) -> Mac:
        prompt = prompt_of(job)
        loads = [LoadedModel(name=MODEL, slots=SLOTS, open=mac.open) for mac in macs]
        places = [mac.machine.place(load, prompt) for mac, load in zip(macs, loads, strict=True)]
        known = [answer for mac in macs if (answer := mac.machine.served(MODEL).measures.answer)]
        demand = Demand(job.prompt, statistics.fmean(known) if known else ANSWER_TOKENS)
        name = best(places, demand).name
        return next(mac for mac in macs if mac.machine.name == name)

    return choose


def prompt_of(job: Job) -> Prompt:
    return Prompt(job.prompt * BYTES, job.session.chain)


POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": round_robin,
    "least queue": least_queue,
    "ours": ours,
}


@dataclass
class Outcome:
    """What clients and caches got from it: seconds until the first token, prompt tokens."""

    firsts: list[float] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    busy: float = 0.0

    @property
    def mean(self) -> float:
        return statistics.fmean(self.firsts)

    def quantile(self, share: float) -> float:
        return sorted(self.firsts)[int(share * (len(self.firsts) - 1))]

    @property
    def hits(self) -> float:
        """The share of all prompt tokens that were not read again."""
        return self.cached / self.prompt


def simulate(
    policy: str, count: int, *, sessions: int, seed: int, speeds: Sequence[float] = (1.0,)
) -> Outcome:
    """Run a trace of so many sessions for each of `count` Macs, whose speeds repeat."""
    chance = random.Random(seed)
    macs = [Mac(number, speeds[number % len(speeds)]) for number in range(count)]
    choose, outcome, now = POLICIES[policy](), Outcome(), 0.0
    coming = [
        (at, number, session) for number, (at, session) in enumerate(_sessions(chance, count, sessions))
    ]
    heapq.heapify(coming)
    while coming or any(mac.active for mac in macs):
        step = min(mac.next() for mac in macs)
        arrives = coming and coming[0][0] - now <= step
        step = max(0.0, coming[0][0] - now) if arrives else step
        now += step
        for mac in macs:
            for job in mac.advance(step, now):
                _ended(mac, job, now, outcome)
                if job.session.turns:
                    pause = chance.expovariate(1 / PAUSE)
                    heapq.heappush(coming, (now + pause, job.session.number, job.session))
            mac.begin(now)
        if arrives:
            _, _, session = heapq.heappop(coming)
            session.turns -= 1
            session.grow(round(chance.expovariate(1 / NEW)) + 1)
            job = Job(session, now, round(chance.expovariate(1 / ANSWER)) + 1, prompt=session.size)
            choose(macs, job).take(job, now)
    outcome.busy = sum(mac.busy for mac in macs) / (now * count)
    return outcome


def _sessions(chance: random.Random, count: int, sessions: int) -> list[tuple[float, Session]]:
    made, at = [], 0.0
    for number in range(count * sessions):
        at += chance.expovariate(count / EVERY)
        agent = chance.choice(list(AGENTS))
        made.append((at, Session(number, agent, AGENTS[agent])))
    return made


def _ended(mac: Mac, job: Job, now: float, outcome: Outcome) -> None:
    first = now if job.first is None else job.first
    outcome.firsts.append(first - job.came)
    outcome.prompt += job.prompt
    outcome.cached += job.cached
    prompt = prompt_of(job)
    job.session.grow(job.answer)
    mac.keep(job.session)
    crowd = crowding(len(mac.active), SLOTS)
    figures = Figures(
        prompt_tokens=job.prompt,
        cached_tokens=job.cached,
        tokens=job.answer,
        tokens_per_second=WRITES * mac.speed / crowd,
        first_token=first - job.began,
        seconds=now - job.began,
        before=job.before,
        slots=SLOTS,
    )
    mac.machine.learn(MODEL, prompt, figures, tells_cached=True)


def table(counts: Sequence[int], *, sessions: int, seed: int, speeds: Sequence[float] = (1.0,)) -> str:
    """The table of the docs, in Markdown."""
    alone = simulate("least queue", 1, sessions=sessions * 4, seed=seed, speeds=speeds).hits
    rows = [
        "| Macs | policy | first token, mean | p50 | p99 | not read again | of one machine's |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in counts:
        for policy in POLICIES:
            one = simulate(policy, count, sessions=sessions, seed=seed, speeds=speeds)
            rows.append(
                f"| {count} | {policy} | {one.mean:.1f} s | {one.quantile(0.5):.1f} s | {one.quantile(0.99):.0f} s "
                f"| {one.hits:.1%} | {one.hits / alone:.3f} |"
            )
    return "\n".join(rows)
