"""What a client is told about its request: headers of every answer, its place in the queue, when to try again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness import QUICK, chat, fake, serving

ONE_AT_A_TIME = QUICK + "[limits]\nconcurrency = 1\nqueue = 1\n"


async def test_every_answer_says_who_gave_it(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        worker = f"127.0.0.1:{served.row('a')['port']}"
        ids = set()
        for stream in (False, True):
            for text, expected in (("hi", 200), ("[[status 500]]", 502)):
                answer = await served.ask("a", text, stream=stream)
                assert answer.status == expected
                told = {k.lower(): v for k, v in answer.headers.items() if k.lower().startswith("x-draftd")}
                assert told == {
                    "x-draftd-profile": "a",
                    "x-draftd-worker": worker,
                    "x-draftd-queue-position": "0",
                }
                ids.add(answer.headers["x-request-id"])
        unknown = await served.ask("nope")
        assert "x-draftd-profile" not in unknown.headers
        ids.add(unknown.headers["x-request-id"])
        ids.add((await served.get("/v1/models")).headers["x-request-id"])
        assert len(ids) == 6


async def test_a_waiting_client_learns_its_place_and_one_too_many_when_to_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(tables=ONE_AT_A_TIME)}, keepalive_interval=0.05) as served:
        await served.ask("a")  # from now on it is known how long a request takes: not long
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(served.ask("a", "[[slow 0.1]]", stream=True))
            await served.until_queue("a")
            body = chat(model="a", stream=True)
            async with served.http.post(served.url + "/v1/chat/completions", json=body) as second:
                # Its headers came with a comment, while it still waits.
                await served.until_queue("a", waiting=1)
                assert second.headers["x-draftd-queue-position"] == "1"
                third = await served.ask("a")
                assert (third.status, third.json["error"]["code"]) == (429, "queue_full")
                assert third.headers["Retry-After"] == "1"
                assert third.headers["x-draftd-queue-position"] == "2"
                assert b"[DONE]" in await second.read()
        assert first.result().events[-1] == "[DONE]"
        waits = await served.metrics()
        assert waits['draftd_queue_wait_seconds_count{profile="a"}'] == 3
        assert waits['draftd_queue_wait_seconds_sum{profile="a"}'] > 0.1
