"""Admission: first come, first served; bounded; no request is lost, whichever client leaves, and whenever."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftd.errors import WorkerError
from draftd.web.admission import FIRST_RETRY_AFTER, Admission


class Room:
    """An admission whose limits can change, and the clients that come, go in when let, and leave when told."""

    def __init__(self, slots: int, longest: int = 100) -> None:
        self.slots = slots
        self.longest = longest
        self.admission = Admission(lambda: (self.slots, self.longest))
        self.tasks: list[asyncio.Task[None]] = []
        self.may_leave: list[asyncio.Event] = []
        self.inside: set[int] = set()
        self.entered: list[int] = []
        self.refused: dict[int, WorkerError] = {}

    def come(self) -> int:
        number = len(self.tasks)
        self.may_leave.append(asyncio.Event())
        self.tasks.append(asyncio.create_task(self._visit(number)))
        return number

    async def _visit(self, number: int) -> None:
        try:
            async with self.admission.slot():
                self.entered.append(number)
                self.inside.add(number)
                try:
                    await self.may_leave[number].wait()
                finally:
                    self.inside.remove(number)
        except WorkerError as error:
            self.refused[number] = error

    def leave(self, number: int) -> None:
        self.may_leave[number].set()

    def give_up(self, number: int) -> None:
        self.tasks[number].cancel()

    async def settle(self) -> None:
        """Let every task run until it waits: a chain from one to the next takes a few turns of the loop."""
        for _ in range(3 * len(self.tasks) + 3):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Every client leaves once it is in, and all get in."""
        for event in self.may_leave:
            event.set()
        await self.settle()
        assert all(task.done() for task in self.tasks)
        assert all(task.cancelled() or task.exception() is None for task in self.tasks)
        assert (self.admission.active, self.admission.depth) == (0, 0)


async def room_with(clients: int, slots: int, longest: int = 100) -> Room:
    room = Room(slots, longest)
    for _ in range(clients):
        room.come()
    await room.settle()
    return room


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_as_many_go_in_as_there_are_slots_and_the_rest_follow_in_order(slots: int) -> None:
    room = await room_with(6, slots)
    for number in range(6):
        assert room.entered == list(range(min(number + slots, 6)))
        assert (room.admission.active, room.admission.depth) == (len(room.inside), 6 - len(room.entered))
        room.leave(number)
        await room.settle()
    await room.close()


async def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    room = await room_with(2, slots=1)
    room.leave(0)
    room.come()
    await room.settle()
    assert room.entered == [0, 1]
    await room.close()


async def test_one_too_many_is_sent_away_and_told_when_to_come_again() -> None:
    room = await room_with(4, slots=1, longest=2)
    error = room.refused[3]
    assert "2 requests are waiting" in str(error)
    assert (error.status, error.code, error.retry_after, error.retry) == (
        429,
        "queue_full",
        FIRST_RETRY_AFTER,
        True,
    )
    assert (room.admission.active, room.admission.depth) == (1, 2)
    await room.close()
    assert room.entered == [0, 1, 2]


async def test_without_a_queue_a_free_slot_is_still_given() -> None:
    room = await room_with(2, slots=1, longest=0)
    assert (room.entered, list(room.refused)) == ([0], [1])
    await room.close()


async def test_a_place_in_the_queue_is_free_when_its_owner_gives_up() -> None:
    room = await room_with(3, slots=1, longest=2)
    room.give_up(1)
    room.come()
    await room.settle()
    assert not room.refused
    await room.close()
    assert room.entered == [0, 2, 3]


async def test_a_request_that_fails_or_is_cancelled_frees_its_slot() -> None:
    room = await room_with(2, slots=1)
    room.give_up(0)
    await room.settle()
    assert room.entered == [0, 1]
    await room.close()
    with pytest.raises(ZeroDivisionError):
        async with room.admission.slot():
            raise ZeroDivisionError
    assert room.admission.active == 0


@pytest.mark.parametrize("first", ["gives up", "is let in"])
async def test_who_gives_up_in_the_moment_of_being_let_in_hands_the_slot_on(first: str) -> None:
    room = Room(slots=1)
    held = room.admission.slot()
    await held.__aenter__()
    leaver, next_one = room.come(), room.come()
    await room.settle()
    if first == "gives up":
        room.give_up(leaver)
    await held.__aexit__(None, None, None)  # lets the leaver in, whose task has not run yet
    room.give_up(leaver)
    await room.settle()
    assert room.entered == [next_one]
    assert room.admission.active == 1
    await room.close()


@pytest.mark.parametrize("how", ["refresh", "newcomer"])
async def test_a_larger_limit_lets_in_those_who_wait(how: str) -> None:
    room = await room_with(4, slots=1, longest=3)
    room.slots = 3
    if how == "refresh":
        room.admission.refresh()
    else:
        room.come()
    await room.settle()
    assert room.entered == [0, 1, 2]
    assert not room.refused
    await room.close()


async def test_a_smaller_limit_holds_back_until_enough_have_left() -> None:
    room = await room_with(4, slots=3)
    room.slots = 1
    for number in (0, 1):
        room.leave(number)
        await room.settle()
        assert room.entered == [0, 1, 2]
    room.leave(2)
    await room.settle()
    assert room.entered == [0, 1, 2, 3]
    await room.close()


async def test_the_time_waited_is_told() -> None:
    admission = Admission(lambda: (1, 1))
    async with admission.slot() as waited:
        assert 0 <= waited < 5


steps = st.tuples(st.sampled_from(["come", "come", "leave", "give up", "settle"]), st.integers(0, 30))


async def play(slots: int, longest: int, history: Sequence[tuple[str, int]]) -> None:
    room = Room(slots, longest)
    gave_up = set()
    for step, pick in history:
        number = pick % len(room.tasks) if room.tasks else room.come()
        match step:
            case "come":
                room.come()
            case "leave":
                room.leave(number)
            case "give up":
                gave_up.add(number)
                room.give_up(number)
            case "settle":
                await room.settle()
                assert room.admission.active == len(room.inside)
        assert len(room.inside) <= room.admission.active <= slots
        assert room.admission.depth <= longest
    await room.close()
    assert len(set(room.entered)) == len(room.entered)
    assert set(range(len(room.tasks))) - gave_up - set(room.refused) <= set(room.entered)
    if slots == 1:
        assert room.entered == sorted(room.entered)


@settings(max_examples=3 * settings().max_examples // 2)
@given(st.integers(1, 3), st.integers(0, 5), st.lists(steps, max_size=30))
def test_whatever_happens_nobody_is_lost_and_no_slot_is_given_twice(
    slots: int, longest: int, history: list[tuple[str, int]]
) -> None:
    asyncio.run(play(slots, longest, history))
