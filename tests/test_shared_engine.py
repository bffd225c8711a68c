"""Profiles that share a worker, in a running daemon: each is a model of its own, and one child serves them all."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.harness import QUICK, Served, alive, chat, fake, kill, serving

ONE_AT_A_TIME = QUICK + "[limits]\nconcurrency = 1\n"


def sharing(*flags: str, top: str = "share_engine = true", tables: str = QUICK) -> str:
    return fake(*flags, top=top, tables=tables)


def series(name: str, profile: str) -> str:
    return f'draftd_{name}{{profile="{profile}"}}'


def pids(served: Served, *names: str) -> set[int]:
    return {served.row(name)["pid"] for name in names}


async def reload(served: Served) -> list[str]:
    changed: list[str] = (await served.post("/api/reload")).json["changed"]
    return changed


async def test_each_is_a_model_of_its_own_with_its_own_defaults_and_figures(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    tokens = {"a": 2, "b": 3, "c": 4}
    profiles = {
        name: sharing("--log-requests", str(asked), tables=f"{QUICK}[defaults]\nmax_tokens = {count}\n")
        for name, count in tokens.items()
    }
    async with serving(tmp_path, profiles) as served:
        models = (await served.get("/v1/models")).json["data"]
        assert [model["id"] for model in models] == ["a", "b", "c"]
        async with (
            served.http.get(served.url + "/api/logs/b?follow=1&lines=1&raw=1") as log,
            asyncio.timeout(10),
        ):
            for name, count in tokens.items():
                answer = await served.ask(name, stream=True)
                assert (len(answer.content.split()), answer.events[0]["model"]) == (count, name)
                line = f"[{name}] Draft tokens accepted: {count}/{2 * count} (50%)"
                while line.encode() not in await log.content.readline():
                    pass
        metrics = await served.metrics()
        for name, count in tokens.items():
            assert metrics[series("draft_tokens_accepted_total", name)] == count
            assert metrics[series("draft_tokens_proposed_total", name)] == 2 * count
            assert metrics[series("completion_tokens_total", name)] == count
            assert served.row(name)["acceptance"]["accepted"] == count
        bodies = [json.loads(line) for line in asked.read_text().splitlines()]
        assert [body["max_tokens"] for body in bodies] == [1, 2, 3, 4]  # the first is the check of readiness


async def test_what_is_the_worker_s_is_told_once_and_who_shares_it(tmp_path: Path) -> None:
    async with serving(tmp_path, {name: sharing() for name in "abc"} | {"alone": fake()}) as served:
        assert len(pids(served, "a", "b", "c")) == 1
        assert len({served.row(name)["port"] for name in ("a", "b", "c", "alone")}) == 2
        rows = [served.row(name) for name in ("a", "b", "c", "alone")]
        assert [row["worker"] for row in rows] == ["a", "a", "a", "alone"]
        assert [row["shares_with"] for row in rows] == [["b", "c"], ["a", "c"], ["a", "b"], []]
        assert [row["memory_bytes"] is None for row in rows] == [False, True, True, False]
        [before] = pids(served, "a")
        async with served.http.get(served.url + "/api/events") as events, asyncio.timeout(10):
            assert await events.content.readline() == b"event: snapshot\n"
            snapshot = json.loads((await events.content.readline()).removeprefix(b"data: "))
        assert snapshot["logs"].keys() == {"a", "alone"}
        answer = await served.post("/api/workers/b/restart")
        assert answer.json == {"name": "b", "order": "restart", "shares_with": ["a", "c"]}
        await served.until(lambda: served.state("c") == "ready" and before not in pids(served, "a", "b", "c"))
        metrics = await served.metrics()
        for name in ("a", "b", "c"):
            assert metrics[f'draftd_worker_state{{profile="{name}",state="ready"}}'] == 1
        memory = {key for key in metrics if key.startswith("draftd_worker_memory_bytes")}
        assert memory == {series("worker_memory_bytes", name) for name in ("a", "alone")}
        restarts = [
            metrics.get(f'draftd_worker_restarts_total{{profile="{n}",reason="operator"}}', 0) for n in "abc"
        ]
        assert restarts == [1, 0, 0]


async def test_what_the_worker_says_of_a_profile_that_it_never_served_counts_for_the_first(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, {"a": sharing(), "b": sharing(), "alone": fake()}) as served:
        async with (
            served.http.get(served.url + "/api/logs/a?follow=1&lines=1&raw=1") as log,
            asyncio.timeout(10),
        ):
            for name in ("stranger", "alone", "b"):
                headers = {"X-Draftd-Profile": name}
                url = f"http://127.0.0.1:{served.row('a')['port']}/v1/chat/completions"
                async with served.http.post(url, json=chat(stream=True), headers=headers) as answer:
                    await answer.read()
                while f"[{name}] Draft tokens".encode() not in await log.content.readline():
                    pass
        accepted = {name: served.row(name)["acceptance"]["accepted"] for name in ("a", "b", "alone")}
        assert accepted == {"a": 10, "b": 5, "alone": 0}


async def test_the_log_of_a_profile_by_itself_is_as_it_always_was(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, {"a": sharing()}) as served,
        served.http.get(served.url + "/api/logs/a?follow=1&lines=1&raw=1") as log,
        asyncio.timeout(10),
    ):
        await served.ask("a")
        while not (line := await log.content.readline()).endswith(b" Draft tokens accepted: 5/10 (50%)\n"):
            pass
        assert b"[" not in line


async def test_profiles_that_go_together_are_forgotten_when_their_worker_has_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": sharing(), "b": sharing(), "c": fake()}) as served:
        [pid] = pids(served, "a", "b")
        streaming = asyncio.create_task(served.ask("b", "[[slow 0.05]]", stream=True))
        await served.until_queue("b")
        for name in "ab":
            (served.profiles / f"{name}.toml").unlink()
        assert await reload(served) == ["a", "b"]
        assert series("prompt_tokens_total", "b") in await served.metrics()
        assert (await streaming).events[-1] == "[DONE]"
        await served.until(lambda: not alive(pid))
        await served.until(lambda: b'profile="b"' not in served.daemon.metrics.render()[0])
        assert b'profile="a"' not in served.daemon.metrics.render()[0]


async def test_the_setting_is_for_those_that_do_not_say(tmp_path: Path) -> None:
    profiles = {"a": fake(), "b": fake(), "c": fake(top="share_engine = false")}
    async with serving(tmp_path, profiles, share_engine=True) as served:
        assert pids(served, "a") == pids(served, "b") != pids(served, "c")


async def test_they_stand_in_one_line_first_come_first_served(tmp_path: Path) -> None:
    done: list[str] = []

    async def ask(served: Served, name: str) -> None:
        answer = await served.ask(name, "[[slow 0.02]]", stream=True)
        assert answer.events[-1] == "[DONE]"
        done.append(name)

    async with serving(tmp_path, {name: sharing(tables=ONE_AT_A_TIME) for name in "abc"}) as served:
        async with asyncio.TaskGroup() as tasks:
            for number, name in enumerate("bcab"):
                tasks.create_task(ask(served, name))
                await served.until_queue("a", waiting=number)
                if not number:
                    kill(served.row("a")["pid"], signal.SIGSTOP)  # no request goes on while we look
            assert {served.row(name)["queue"] for name in "abc"} == {3}
            metrics = await served.metrics()
            assert {key: metrics[key] for key in metrics if key.startswith("draftd_queue_depth")} == {
                series("queue_depth", "a"): 3
            }
            kill(served.row("a")["pid"], signal.SIGCONT)
        assert done == list("bcab")


async def test_who_joins_leaves_or_changes_its_defaults_restarts_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, {name: sharing() for name in "abc"}) as served:
        [pid] = pids(served, "a")
        served.write("c", sharing(tables=f"{QUICK}[defaults]\nmax_tokens = 1\n"))
        served.write("d", sharing())
        assert await reload(served) == ["c", "d"]
        assert pids(served, "a", "b", "c", "d") == {pid}
        streaming = asyncio.create_task(served.ask("b", "[[slow 0.05]]", stream=True))
        await served.until_queue("a")
        (served.profiles / "a.toml").unlink()  # the first, under whose name the worker ran
        assert await reload(served) == ["a"]
        assert (await served.ask("a")).status == 404
        assert (await streaming).events[-1] == "[DONE]"
        assert [served.row(name)["worker"] for name in "bcd"] == ["b"] * 3
        assert pids(served, "b", "c", "d") == {pid}
        assert len((await served.ask("c", stream=True)).content.split()) == 1
        metrics = await served.metrics()
        assert series("worker_memory_bytes", "b") in metrics
        assert not [key for key in metrics if 'profile="a"' in key]
        async with (
            served.http.get(served.url + "/api/logs/d?follow=1&lines=1&raw=1") as log,
            asyncio.timeout(10),
        ):
            await served.ask("d")
            while b"[d] Draft tokens accepted" not in await log.content.readline():
                pass


async def test_a_reload_takes_profiles_apart_and_brings_them_together(tmp_path: Path) -> None:
    async with serving(tmp_path, {name: sharing() for name in "ab"}) as served:
        [together] = pids(served, "a", "b")
        served.write("b", fake())
        await reload(served)
        await served.until_state("b", "ready")
        [alone] = pids(served, "b")
        assert pids(served, "a") == {together} != {alone}
        assert served.row("a")["shares_with"] == served.row("b")["shares_with"] == []
        assert series("worker_memory_bytes", "b") in await served.metrics()
        served.write("b", sharing())
        await reload(served)
        assert pids(served, "a", "b") == {together}
        await served.until(lambda: not alive(alone))
        assert (await served.ask("b")).status == 200
        assert alive(together)


async def test_a_request_that_waits_when_its_profile_moves_is_answered_by_the_new_worker(
    tmp_path: Path,
) -> None:
    profiles = {"a": sharing(tables=ONE_AT_A_TIME), "b": fake(tables=ONE_AT_A_TIME)}
    async with serving(tmp_path, profiles) as served:
        first = asyncio.create_task(served.ask("b", "[[slow 0.2]]", stream=True))
        await served.until_queue("b")
        second = asyncio.create_task(served.ask("b"))
        await served.until_queue("b", waiting=1)
        served.write("b", sharing(tables=ONE_AT_A_TIME))
        await reload(served)
        assert (await first).events[-1] == "[DONE]"
        answer = await second
        assert answer.status == 200
        assert answer.headers["x-draftd-worker"] == f"127.0.0.1:{served.row('a')['port']}"
