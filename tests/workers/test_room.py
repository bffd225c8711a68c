"""Room in memory: real workers with pretended children share a budget, and requests come for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from draftd import first_start
from draftd.errors import WorkerError
from draftd.groups import Groups
from draftd.pressure import Pressure
from draftd.profile_tables import RestartPolicy
from draftd.profiles import Profile
from draftd.workers import budget
from draftd.workers import room as module
from draftd.workers.events import IDLE, BecameReady, Event, Reconfigure, Restart, Start, Stop
from draftd.workers.room import Room
from draftd.workers.states import Draining, Queued, Ready, Starting, State, Stopped
from draftd.workers.worker import Worker
from tests.workers.pretended import AT_ONCE, World, settle
from tests.workers.running import AGAIN_AT_ONCE, running

GB = 10**9
SIZES = {"a": 4 * GB, "b": 4 * GB, "c": 4 * GB, "large": 11 * GB, "small": 2 * GB}

# Many failures, and short delays: what a request waits for comes soon.
PATIENT = RestartPolicy(max_failures=1000, initial_delay=AT_ONCE, max_delay=AT_ONCE, stable_delay=AT_ONCE)


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker takes what its name says, of a budget of 10 GB; most of it is weights."""
    monkeypatch.setattr(first_start, "need", lambda profile, environ: SIZES[profile.name])
    monkeypatch.setattr(first_start, "weights_here", lambda profile, environ: SIZES[profile.model] - GB // 10)


def profile(name: str, **fields: object) -> Profile:
    return Profile.model_validate({"name": name, "model": name, "restart": AGAIN_AT_ONCE} | fields)


class Machine:
    """Workers by name, whose children get ready at once."""

    def __init__(self, world: World, workers: list[Worker]) -> None:
        self.world = world
        self.workers = {one.name: one for one in workers}
        self._told: set[int] = set()

    def state(self, name: str) -> type[State]:
        return type(self.workers[name].state)

    async def load(self, rounds: int = 10) -> None:
        """Everything that loads gets ready, in several rounds."""
        await settle()
        for _ in range(rounds):
            for one in self.workers.values():
                watched = one.watched
                loads = isinstance(one.state, Starting) and watched in self.world.watched
                if watched is not None and loads and watched.pid not in self._told:
                    self._told.add(watched.pid)
                    self.world.tell_of(watched, BecameReady())
            await settle()

    def check_budget(self) -> None:
        """Counts the children that live, not what the workers say about themselves."""
        pids = {child.pid for child in self.world.alive}
        held = [one.name for one in self.workers.values() if one.status().pid in pids]
        assert len(held) == len(pids)
        assert sum(SIZES[name] for name in held) <= 10 * GB

    async def hold(self, name: str, end: asyncio.Event) -> None:
        """A request that is open until `end`."""
        async with self.workers[name].lease(name):
            await end.wait()

    @asynccontextmanager
    async def asked(self, name: str) -> AsyncIterator[None]:
        """While a request to this worker is open, or waits."""
        release = asyncio.Event()

        async def request() -> None:
            async with self.workers[name].lease(name):
                await release.wait()

        task = asyncio.create_task(request())
        await self.load()
        try:
            yield
        finally:
            release.set()
            await self.load()
            task.cancel()
            await asyncio.wait([task])

    async def ask_plainly(self, name: str) -> None:
        async with asyncio.timeout(10), self.workers[name].lease(name):
            pass

    async def ask(self, name: str) -> None:
        async with self.asked(name):
            pass


@asynccontextmanager
async def machine(
    *profiles: Profile, patience: float = module.PATIENCE, groups: Groups | None = None
) -> AsyncIterator[Machine]:
    world = World(loads=3, room=Room(10 * GB, patience, groups))
    async with running(world, *profiles, start=False) as workers:
        made = Machine(world, workers)
        yield made
        made.check_budget()


@pytest.mark.fault(106)
async def test_the_least_recently_used_idle_worker_makes_room_for_a_request() -> None:
    async with machine(profile("a"), profile("b"), profile("c")) as one:
        await one.ask("a")
        await one.ask("b")
        await one.ask("a")
        await one.ask("c")
        assert [one.state(name) for name in "abc"] == [Ready, Stopped, Ready]
        async with one.asked("b"):
            assert [one.state(name) for name in "abc"] == [Stopped, Ready, Ready]
    assert not [entry for entry in one.world.log if entry[0] == "restart"]


@pytest.mark.fault(106)
async def test_a_busy_worker_is_waited_for_and_its_open_request_may_finish() -> None:
    async with machine(profile("a"), profile("b"), profile("c")) as one:
        async with one.asked("a"), one.asked("b"):
            waiting = asyncio.create_task(one.ask_plainly("c"))
            await one.load()
            assert one.state("c") is Queued
        await one.load()
        await waiting
        assert one.state("c") is Ready


@pytest.mark.fault(106)
async def test_after_its_time_a_busy_worker_takes_no_new_requests_and_those_come_after_the_other() -> None:
    async with AsyncExitStack() as late, machine(profile("a"), profile("large"), patience=0.05) as one:
        SIZES["large"] = 8 * GB
        async with one.asked("a"):
            other = asyncio.create_task(one.ask_plainly("large"))
            await until(lambda: one.state("a") is Draining, one)
            await late.enter_async_context(one.asked("a"))
            assert one.state("a") is Draining
        await until(other.done, one)
        await other
        await until(lambda: one.state("a") is Ready, one)
        await late.aclose()
        SIZES["large"] = 11 * GB


async def until(is_so: Callable[[], bool], one: Machine) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await one.load()
            await asyncio.sleep(0.01)


@pytest.mark.fault(106)
async def test_what_cannot_fit_is_told_with_both_sizes_and_what_is_pinned() -> None:
    async with machine(profile("large"), profile("a", pin=True), profile("b")) as one:
        with pytest.raises(WorkerError) as refused:
            await one.ask_plainly("large")
        text = "'large' does not fit in memory: it needs 10.9 GB, and all workers together may take 10.0 GB"
        assert (str(refused.value), refused.value.code, refused.value.retry) == (text, "no_room", False)
        await one.ask("a")
        SIZES["b"] = 7 * GB
        with pytest.raises(WorkerError, match=r"may take 10.0 GB, of which 'a' keeps 4.0 GB"):
            await one.ask_plainly("b")
        SIZES["b"] = 4 * GB
        one.workers["large"].post(Start())
        await one.load()
        assert (one.state("large"), one.state("a")) == (Stopped, Ready)


@pytest.mark.fault(161)
async def test_workers_that_must_be_apart_take_turns_although_both_would_fit() -> None:
    groups = Groups(apart=(("a", "b"),))
    async with machine(profile("a"), profile("b"), profile("c"), groups=groups) as one:
        for name in "abc":
            await one.ask(name)
        assert [one.state(name) for name in "abc"] == [Stopped, Ready, Ready]
        async with one.asked("b"):
            waiting = asyncio.create_task(one.ask_plainly("a"))
            await one.load()
            assert one.state("a") is Queued
        await until(waiting.done, one)
        assert [one.state(name) for name in "abc"] == [Ready, Stopped, Ready]


@pytest.mark.fault(161)
async def test_one_that_must_be_apart_from_a_pinned_one_is_told_so() -> None:
    groups = Groups(together=(("a", "c"), ("b",)))
    async with machine(profile("a", pin=True), profile("b"), profile("c"), groups=groups) as one:
        await one.ask("a")
        await one.ask("c")
        reason = r"'b' does not fit in memory: \[groups\] keeps it apart from 'a', which is pinned"
        with pytest.raises(WorkerError, match=reason) as refused:
            await one.ask_plainly("b")
        assert (refused.value.code, refused.value.retry) == ("no_room", False)
        assert [one.state(name) for name in "abc"] == [Ready, Stopped, Ready]


@pytest.mark.fault(160)
async def test_when_memory_is_short_idle_workers_sleep_and_requests_wait_until_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "QUIET", 0.0)
    monkeypatch.setattr(budget, "RELIEF", 0.02)
    async with machine(profile("a"), profile("b", pin=True), profile("small"), profile("c")) as one:
        for name in ("a", "b", "small"):
            await one.ask(name)
        room = one.world.services.room
        async with one.asked("small"):
            room.feels(Pressure.WARNING)
            await until(lambda: one.state("a") is Stopped, one)
            assert one.workers["a"].status().state == "asleep"
            waiting = asyncio.create_task(one.ask_plainly("c"))
            await one.load()
            assert one.workers["c"].status().reason == (
                "until the machine is less short of memory: its pressure is warning"
            )
            assert one.state("small") is Ready, "it is used"
        await until(lambda: one.state("small") is Stopped, one)
        assert (one.state("b"), one.state("c"), waiting.done()) == (Ready, Queued, False)
        room.feels(Pressure.NORMAL)
        await until(waiting.done, one)
        assert one.state("c") is Ready
        room.feels(Pressure.CRITICAL)
        await one.load()
        assert [one.state(name) for name in ("b", "c")] == [Ready, Stopped]


def command(name: str, **fields: object) -> Profile:
    """The command of a foreign server, of which nobody knows how much it will take."""
    return profile(name, command=["server", "{port}"], **fields)


@pytest.mark.fault(106)
async def test_a_worker_of_unknown_size_that_has_taken_too_much_is_let_in_alone_or_told_so_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a"), command("large"), profile("small", pin=True)) as one:
        monkeypatch.setitem(SIZES, "large", 10 * GB)  # what it is reckoned with
        await one.ask("a")
        await one.ask("large")
        one.world.services.room.has_grown(one.workers["large"], 11 * GB)
        one.workers["large"].post(Stop())
        await one.load()
        one.workers["large"].post(Start())
        await one.load()
        assert [one.state(name) for name in ("a", "large")] == [Stopped, Ready]
        one.workers["large"].post(Stop(IDLE))
        await one.ask("small")
        with pytest.raises(WorkerError, match=r"'large' does not fit in memory: it needs 10.0 GB") as refused:
            await one.ask_plainly("large")
        assert (refused.value.code, refused.value.retry) == ("no_room", False)


async def test_a_request_that_was_refused_room_is_told_so_although_there_would_be_room_by_then() -> None:
    async with machine(profile("a")) as one:
        asking = asyncio.create_task(one.ask_plainly("a"))
        await asyncio.sleep(0)
        one.workers["a"].refuse("it needs more")  # handled before its turn to load
        with pytest.raises(WorkerError, match="'a' did not fit in memory: it needs more") as refused:
            await asking
        assert (refused.value.code, refused.value.retry_after) == ("no_room", 1.0)
        await one.ask("a")
        assert one.state("a") is Ready, "the next request tries again"


async def test_what_the_old_model_took_is_no_reason_to_refuse_the_new_one() -> None:
    async with machine(command("a"), profile("small", pin=True)) as one:
        await one.ask("small")
        await one.ask("a")
        one.world.services.room.has_grown(one.workers["a"], 9 * GB)
        one.workers["a"].post(Stop(IDLE))
        await one.load()
        one.workers["a"].post(Reconfigure(command("a", model="other"), restart=True))
        await one.ask("a")
        assert one.state("a") is Ready


async def test_what_the_old_model_takes_on_its_way_out_is_no_reason_either() -> None:
    async with machine(command("a"), profile("small", pin=True)) as one:
        await one.ask("small")
        async with one.asked("a"):
            one.workers["a"].post(Reconfigure(command("a", model="other"), restart=True))
            await one.load()
            assert one.state("a") is Draining
            one.world.services.room.has_grown(one.workers["a"], 9 * GB)
        await one.ask("a")
        assert one.state("a") is Ready


async def test_a_start_that_is_refused_leaves_its_reason_in_the_status() -> None:
    async with machine(profile("large")) as one:
        one.workers["large"].post(Start())
        await one.load()
        status = one.workers["large"].status()
        assert status.state == "asleep"
        assert status.reason.startswith("it does not fit in memory: it needs 10.9 GB, and all workers")


async def test_a_person_who_restarts_a_ready_worker_gets_it_though_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a"), profile("b"), profile("large")) as one:
        monkeypatch.setitem(SIZES, "large", 8 * GB)
        async with one.asked("b"):
            one.workers["a"].post(Start())
            await one.load()
            asking = asyncio.create_task(one.ask_plainly("large"))
            one.workers["a"].post(Restart("operator"))
            await one.load()
            assert one.state("a") is Queued, "behind the other, and not declined"
        await until(asking.done, one)
        await until(lambda: one.state("a") is Ready, one)
        await asking


async def test_a_worker_that_becomes_another_while_it_waits_is_reckoned_anew_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a"), profile("b"), profile("c"), patience=1000.0) as one:
        monkeypatch.setitem(SIZES, "b", 8 * GB)
        async with one.asked("a"):
            asking = {name: asyncio.create_task(one.ask_plainly(name)) for name in "bc"}
            order: list[str] = []
            for name, task in asking.items():
                task.set_name(name)
                task.add_done_callback(lambda done: order.append(done.get_name()))
            await one.load()
            assert [one.state(name) for name in "bc"] == [Queued, Queued]
            told = [one.workers[name].status().reason for name in "bc"]
            assert told == ["for room in memory, taken by a", "for room in memory, taken by a, after b"]
            monkeypatch.setitem(SIZES, "b", 3 * GB)
            one.workers["b"].post(Reconfigure(profile("b"), restart=True))
            await until(lambda: len(order) == 2, one)
            assert (order, one.state("a")) == (["b", "c"], Ready)
        await asyncio.gather(*asking.values())


async def test_a_worker_that_has_room_and_has_not_loaded_gives_it_back_when_it_becomes_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a"), profile("b"), patience=1000.0) as one:
        async with one.asked("a"):
            tickets = [object() for _ in range(3)]
            for ticket in tickets:
                one.world.gate.acquire(ticket, lambda: None, "other")
            asking = asyncio.create_task(one.ask_plainly("b"))
            await one.load()
            assert one.workers["b"].status().reason.startswith("for its turn to load")
            monkeypatch.setitem(SIZES, "b", 8 * GB)
            one.workers["b"].post(Reconfigure(profile("b"), restart=True))
            for ticket in tickets:
                one.world.gate.release(ticket)
            await one.load()
            assert one.workers["b"].status().reason == "for room in memory, taken by a"
        await until(asking.done, one)
        await asking


async def test_a_pinned_worker_that_restarts_keeps_nobody_out_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a", pin=True), profile("b")) as one:
        await one.ask("a")
        monkeypatch.setitem(SIZES, "b", 7 * GB)
        async with one.asked("a"):
            one.workers["a"].post(Restart("operator", 1000.0))
            await one.load()
            assert one.state("a") is Draining
            asking = asyncio.create_task(one.ask_plainly("b"))
            await one.load()
            assert not asking.done()
            assert one.state("b") is Queued
        await until(asking.done, one)
        await asking


async def test_a_model_whose_weights_fit_is_let_in_alone_however_much_its_context_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with machine(profile("a"), profile("large")) as one:
        monkeypatch.setattr(first_start, "weights_here", lambda profile, environ: 9 * GB)
        await one.ask("a")
        await one.ask("large")
        assert [one.state(name) for name in ("a", "large")] == [Stopped, Ready]
        monkeypatch.setitem(SIZES, "large", 10 * GB)  # what it is reckoned with


async def test_a_pinned_worker_stays_and_the_other_goes() -> None:
    async with machine(profile("a", pin=True), profile("b"), profile("c")) as one:
        for name in "abc":
            await one.ask(name)
        assert [one.state(name) for name in "abc"] == [Ready, Stopped, Ready]


async def test_the_daemons_own_start_drives_nobody_out_and_a_persons_order_does() -> None:
    async with machine(profile("a"), profile("b"), profile("c")) as one:
        for worker in one.workers.values():
            worker.post(Start(wanted=False))
        await one.load()
        assert [one.state(name) for name in "abc"] == [Ready, Ready, Stopped]
        one.workers["c"].post(Start())
        await one.load()
        assert sorted(one.state(name).__name__ for name in "abc") == ["Ready", "Ready", "Stopped"]
        assert one.state("c") is Ready


async def test_a_stopped_worker_gives_its_room_back_and_one_that_grows_takes_more() -> None:
    async with machine(profile("a"), profile("b"), profile("c")) as one:
        await one.ask("a")
        await one.ask("b")
        one.workers["a"].post(Stop())
        await one.ask("c")
        assert [one.state(name) for name in "abc"] == [Stopped, Ready, Ready]
        one.world.services.room.has_grown(one.workers["c"], 7 * GB)
        await one.load()
        assert [one.state(name) for name in "abc"] == [Stopped, Stopped, Ready]


async def test_a_worker_that_is_needed_after_all_does_not_sleep() -> None:
    async with machine(profile("a"), profile("b"), profile("c")) as one:
        await one.ask("a")
        await one.ask("b")
        waiting = asyncio.create_task(one.ask_plainly("c"))
        one.workers["c"].post(Start())  # handled before the request to `a`, which `a` hears of first
        async with one.workers["a"].lease("a"):
            await one.load()
            assert one.state("a") is Ready
        await one.load()
        await waiting


@pytest.mark.fault(106)
@pytest.mark.parametrize("seed", range(6))
async def test_in_any_history_children_keep_to_the_budget_and_every_request_has_its_answer(seed: int) -> None:
    dice = Random(seed)
    profiles = [profile(name, pin=name == "small", restart=PATIENT) for name in ("a", "b", "c", "small")]
    async with machine(*profiles, patience=0.0) as one:
        ends: list[asyncio.Event] = []
        requests: list[asyncio.Task[None]] = []

        def ask(name: str) -> None:
            end = asyncio.Event()
            ends.append(end)
            requests.append(asyncio.create_task(one.hold(name, end)))

        for _ in range(60):
            worker = dice.choice(list(one.workers.values()))
            match dice.randrange(10):
                case 0 | 1 | 2 | 3:
                    ask(worker.name)
                case 4 | 5 | 6 if ends:
                    ends.pop(dice.randrange(len(ends))).set()
                case 7 if requests:
                    dice.choice(requests).cancel()
                case 8 if one.world.alive:
                    dice.choice(one.world.alive).end()  # a crash
                case 9:
                    orders: list[Event] = [Start(), Start(wanted=False), Stop(), Restart("operator")]
                    worker.post(dice.choice(orders))
            await one.load(dice.randrange(4))
            one.check_budget()
        for end in ends:
            end.set()
        for worker in one.workers.values():
            worker.post(Start(wanted=False))
        await until(lambda: all(task.done() for task in requests), one)
        one.check_budget()
        answers = [task.exception() for task in requests if not task.cancelled()]
        assert {type(answer) for answer in answers} <= {type(None), WorkerError}
