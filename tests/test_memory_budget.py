"""More models than fit, with the real engine: five profiles under a budget for two."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.hub import weight_bytes
from draftd.protocol import HEADROOM
from draftd.workers import pressure_watch
from tests.harness import QUICK, Answer, Served, chat, fake, serving

NAMES = "abcde"
BUDGET = int(2.5 * HEADROOM)  # nearly all that is reckoned for a demo worker is its headroom


def loaded(served: Served) -> list[str]:
    return [name for name in NAMES if served.row(name)["pid"] is not None]


@pytest.mark.real
@pytest.mark.fault(106)
async def test_five_profiles_answer_in_turn_and_two_are_in_memory(tmp_path: Path) -> None:
    text = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nautostart = false\n'
    profiles = dict.fromkeys(NAMES, text) | {"a": f"{text}pin = true\n"}
    async with serving(tmp_path, profiles, memory_budget=BUDGET, share_engine=False) as served:
        most: set[int] = set()

        async def ask(name: str) -> int:
            answer = await served.ask(name, "Hi!", max_tokens=5, temperature=0)
            most.add(len(loaded(served)))
            return answer.status

        assert [await ask(name) for name in NAMES] == [200] * 5
        assert loaded(served) == ["a", "e"]
        assert await asyncio.gather(*(ask(name) for name in NAMES * 2)) == [200] * 10
        assert max(most) <= 2
        assert "a" in loaded(served)
        assert served.row("a")["restarts"] == 0
        body = (await served.get("/api/status")).json
        assert body["memory"]["budget_bytes"] == BUDGET


def write_pressure(file: Path, share: float) -> None:
    """As the kernel writes it."""
    rest = "avg60=0.00 avg300=0.00 total=1"
    file.write_text(f"some avg10={share:.2f} {rest}\nfull avg10={share:.2f} {rest}\n")


@pytest.mark.fault(160)
async def test_a_daemon_whose_machine_is_short_of_memory_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure_watch, "LOOK_EVERY", 0.02)
    write_pressure(file := tmp_path / "memory.pressure", 0.0)
    async with serving(tmp_path, {"a": fake()}, memory_pressure=file) as served:
        assert (await served.ask("a")).status == 200
        write_pressure(file, 99.0)
        await served.until_state("a", "asleep")
        assert (await served.get("/api/status")).json["memory"]["pressure"] == "critical"
        asking = asyncio.create_task(served.ask("a"))
        await served.until_state("a", "waiting")
        assert served.row("a")["reason"].endswith("its pressure is critical")
        write_pressure(file, 0.0)
        assert (await asking).status == 200


@pytest.mark.real
@pytest.mark.fault(106)
async def test_a_model_that_cannot_fit_is_refused_with_the_sizes(tmp_path: Path) -> None:
    text = f'model = "{TARGET}"\nautostart = false\n'
    async with serving(tmp_path, {"a": text}, memory_budget=10**6) as served:
        answer = await served.post("/v1/chat/completions", {"model": "a", **chat()})
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_room")
        assert answer.json["error"]["message"] == (
            f"'a' does not fit in memory: it needs {weight_bytes([str(TARGET)]) / 1e6:.0f} MB, "  # type: ignore[operator]
            "and all workers together may take 1 MB"
        )
        assert served.state("a") in {"stopped", "asleep"}


@pytest.mark.fault(187)
async def test_a_request_that_holds_a_slot_while_its_model_loads_counts_once(tmp_path: Path) -> None:
    one_slot = fake(top="autostart = false", tables=QUICK + "[limits]\nconcurrency = 1\n")
    async with serving(tmp_path, {"b": one_slot}, max_loads=1) as served:
        served.daemon._loads.acquire(gate := object(), lambda: None)  # nobody loads for a while
        asking: list[asyncio.Task[Answer]] = []
        for _ in range(3):
            asking.append(asyncio.create_task(served.ask("b")))
            await served.until_queue("b", waiting=len(asking) - 1)
        served.daemon._loads.release(gate)
        answers = await asyncio.gather(*asking)
    assert [one.headers["x-draftd-queue-position"] for one in answers] == ["0", "1", "2"]


async def test_requests_for_models_that_are_not_in_memory_see_their_place(tmp_path: Path) -> None:
    profiles = {"a": fake(), **dict.fromkeys("bc", fake(top="autostart = false"))}
    async with serving(tmp_path, profiles, max_loads=1) as served:
        await served.until_state("a", "ready")
        served.daemon._loads.acquire(gate := object(), lambda: None)  # nobody loads for a while
        asking: list[asyncio.Task[Answer]] = []
        for name in "bbccb":
            asking.append(asyncio.create_task(served.ask(name)))
            while sum(served.row(one)["queue"] for one in "bc") < len(asking):  # noqa: ASYNC110 - no change of state
                await asyncio.sleep(0.01)
        assert [served.row(name)["queue"] for name in "abc"] == [0, 3, 2]
        assert (await served.metrics())['draftd_queue_depth{profile="b"}'] == 3
        live = served.daemon.report.live()["workers"]
        assert [row["active"] for row in live] == [0, 0, 0], "they wait, and nobody works on them"
        assert (await served.ask("a")).headers["x-draftd-queue-position"] == "0"
        served.daemon._loads.release(gate)
        answers = await asyncio.gather(*asking)
    assert [one.headers["x-draftd-queue-position"] for one in answers] == ["0", "1", "2", "3", "2"]
