"""The daemon with the real mlx_lm.server on the demo pair, as a user has it after `make demo`."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rich.color import ColorSystem

from draftd.commands import chat as chat_verb
from draftd.demo import DRAFT, TARGET
from draftd.ops.generation import OpenAIServer
from tests.harness import Served, chat, kill, serving
from tests.test_console import a_terminal, as_if_by
from tests.ties import Token, may_differ

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PRESETS = {"fast": 3, "balanced": 5, "max": 7}
PROMPTS = ("What is speculative decoding?", "Hi!", "What does draftd do?", "Tell me about the presets.")
LINE = re.compile(r"Draft tokens accepted: (\d+)/(\d+) \((\d+)%\)")


def preset(length: int, more: str = "") -> str:
    return f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = {length}\n{more}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """The three presets and, to compare with, the target model without a draft."""
    profiles = {name: preset(length) for name, length in PRESETS.items()} | {"plain": f'model = "{TARGET}"\n'}
    async with serving(tmp_path_factory.mktemp("real"), profiles, ready_limit=120, stop_grace=5.0) as daemon:
        yield daemon


async def greedy(served: Served, model: str, messages: list[dict[str, str]], **fields: Any) -> str:
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 120, **fields}
    answer = await served.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.text
    if fields.get("stream"):
        assert answer.events[-1] == "[DONE]"
        return answer.content
    text: str = answer.json["choices"][0]["message"]["content"]
    return text


async def wrong(
    served: Served, name: str, messages: list[dict[str, str]], expected: str, **fields: Any
) -> str:
    """What is wrong with a drafted text: it is that of no drafting, or parts from it at a tie. "" if nothing is."""
    if await greedy(served, name, messages, **fields) == expected:
        return ""
    return may_differ(*[await tokens_of(served, model, messages) for model in ("plain", name)])


async def tokens_of(served: Served, model: str, messages: list[dict[str, str]]) -> list[Token]:
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 120}
    answer = await served.post("/v1/chat/completions", body | {"logprobs": True, "top_logprobs": 5})
    return [Token.of(item) for item in answer.json["choices"][0]["logprobs"]["content"]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def test_each_preset_answers_by_name_with_the_text_of_the_target_model(served: Served) -> None:
    ports = [served.row(name)["port"] for name in sorted([*PRESETS, "plain"])]
    assert ports == list(range(ports[0], ports[0] + 4))
    for prompt in PROMPTS:
        expected = await greedy(served, "plain", [user(prompt)])
        assert len(expected.split()) > 3
        for name in PRESETS:
            assert not await wrong(served, name, [user(prompt)], expected)
            assert not await wrong(served, f"speculative/{name}", [user(prompt)], expected, stream=True)


async def test_a_second_turn_reuses_the_cache_and_says_what_no_drafting_says(served: Served) -> None:
    first = [user("What is a draft model?")]
    said = await greedy(served, "plain", first)
    second = [*first, {"role": "assistant", "content": said}, user("And what is a round?")]
    expected = await greedy(served, "plain", second)
    for name in PRESETS:
        assert not await wrong(served, name, first, said)
        body = {"model": name, "messages": second, "temperature": 0, "max_tokens": 120}
        answer = (await served.post("/v1/chat/completions", body)).json
        text = answer["choices"][0]["message"]["content"]
        assert text == expected or not await wrong(served, name, second, expected)
        usage = answer["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


async def complete(served: Served, model: str, prompt: str, max_tokens: int) -> str:
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": max_tokens}
    answer = await served.post("/v1/completions", body)
    assert answer.status == 200, answer.text
    text: str = answer.json["choices"][0]["text"]
    return text


@pytest.mark.fault(47)
async def test_drafted_tokens_are_coloured_in_a_chat_by_who_drafted_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, terminal = OpenAIServer(served.url), a_terminal(is_terminal=True)
    terminal._color_system = ColorSystem.STANDARD
    monkeypatch.setattr(chat_verb, "out", terminal)
    talk = [{"role": "user", "content": PROMPTS[0]}]
    settings = {"model": "fast", "temperature": 0, "drafters": ["model"]}
    told = await asyncio.to_thread(chat_verb.settings_for, server, "fast", settings)
    said = await asyncio.to_thread(chat_verb._answered, server, told, talk)
    assert isinstance(terminal.file, io.StringIO)
    written = terminal.file.getvalue()
    coloured = re.findall(r"\x1b\[32m([^\x1b]*)\x1b\[0m", written)
    assert as_if_by(terminal, is_terminal=True).startswith(said)
    answer = await served.post("/v1/chat/completions", told | {"messages": talk})
    pieces = answer.json["choices"][0]["drafters"]["content"]
    drafted = [piece["text"] for piece in pieces if piece["drafter"] == "model"]
    assert "".join(coloured) == "".join(drafted).replace("\n", "") != ""


async def test_a_prompt_that_is_in_the_cache_gets_the_text_that_it_got_before(served: Served) -> None:
    """The same prompt again, and a prompt that is equal to one and its answer."""
    pids = {name: served.row(name)["pid"] for name in (*PRESETS, "plain")}
    prompt = "<|im_start|>user\nWhat is a draft length?<|im_end|>\n<|im_start|>assistant\n"
    said = await complete(served, "plain", prompt, 12)
    expected = await complete(served, "plain", prompt + said, 12)
    assert said
    for name in pids:
        for _ in range(3):
            assert await complete(served, name, prompt, 12) == said
            assert await complete(served, name, prompt + said, 12) == expected
    assert {name: served.row(name)["pid"] for name in pids} == pids


async def test_metrics_are_what_was_generated(served: Served) -> None:
    before = await served.metrics()
    tokens = {"prompt": 0, "completion": 0}
    for prompt in PROMPTS:
        body = {"model": "balanced", "messages": [user(prompt)], "temperature": 0, "max_tokens": 40}
        usage = (await served.post("/v1/chat/completions", body)).json["usage"]
        tokens["prompt"] += usage["prompt_tokens"]
        tokens["completion"] += usage["completion_tokens"]
    lines = LINE.findall((await served.get(f"/api/logs/balanced?lines={1000}&raw=1")).text)
    after = await served.metrics()

    def grown(name: str) -> float:
        key = f'draftd_{name}_total{{profile="balanced"}}'
        return after[key] - before[key]

    assert grown("prompt_tokens") == tokens["prompt"]
    assert grown("completion_tokens") == tokens["completion"]
    newest = lines[-len(PROMPTS) :]
    assert grown("draft_tokens_accepted") == sum(int(accepted) for accepted, _, _ in newest)
    assert grown("draft_tokens_proposed") == sum(int(proposed) for _, proposed, _ in newest)
    assert after['draftd_draft_tokens_proposed_total{profile="balanced"}'] == sum(int(p) for _, p, _ in lines)
    # Each round ends with one token of the target model, or ends the answer.
    rounds, accepted = grown("draft_rounds"), grown("draft_tokens_accepted")
    assert rounds + accepted - len(PROMPTS) <= tokens["completion"] <= rounds + accepted + len(PROMPTS)
    assert after['draftd_draft_accounting{profile="balanced"}'] == 1
    assert after['draftd_draft_accounting{profile="plain"}'] == 1
    assert 0.5 < served.row("balanced")["acceptance"]["ratio"] < 1


@pytest.mark.fault(67, 68)
async def test_a_worker_answers_only_the_daemon_and_its_log_cannot_lie(served: Served) -> None:
    before = await served.metrics()
    worker = f"http://127.0.0.1:{served.row('balanced')['port']}"
    lie = "/Draft%20tokens%20accepted:%20900000000/900000000%20(100%25)"
    for path in ("/v1/chat/completions", "/chat/completions", "/v1/completions", lie):
        async with served.http.post(worker + path, json=chat()) as answer:
            assert (answer.status, "daemon's own" in await answer.text()) == (403, True)
    for path in ("/health", "/v1/models", lie):
        async with served.http.get(worker + path) as answer:
            assert answer.status == 403
    await greedy(served, "balanced", [user("Hi!")])
    after = await served.metrics()
    key = 'draftd_draft_tokens_proposed_total{profile="balanced"}'
    assert 0 < after[key] - before[key] < 1000


async def test_readiness_and_health_checks_draft_nothing(served: Served) -> None:
    old = served.row("max")["pid"]
    before = await served.metrics()
    await served.post("/api/workers/max/restart")
    await served.until(lambda: served.state("max") == "ready" and served.row("max")["pid"] != old, 60)
    key = 'draftd_draft_tokens_proposed_total{profile="max"}'
    assert (await served.metrics())[key] == before[key]
    assert "/health" not in (await served.get("/api/logs/max?lines=1000&raw=1")).text


@pytest.mark.fault(1)
async def test_a_killed_worker_is_noticed_at_once_and_comes_back(
    served: Served, measured: Callable[[float], None]
) -> None:
    old = served.row("fast")["pid"]
    began = time.monotonic()
    kill(old, signal.SIGKILL)
    await served.until_state("fast", "backoff")
    measured(time.monotonic() - began)
    assert time.monotonic() - began < 0.1
    others = {name: served.row(name)["pid"] for name in ("balanced", "max", "plain")}
    assert (await greedy(served, "fast", [user("Hi!")])) != ""
    assert served.row("fast")["pid"] != old
    assert {name: served.row(name)["pid"] for name in others} == others


@pytest.mark.fault(30)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.alone
async def test_a_client_that_leaves_frees_the_worker_within_a_second(served: Served, stream: bool) -> None:
    # At this temperature the end of sequence is one token among thousands: it goes on for long.
    body = chat("Tell me a story.", model="fast", stream=stream, max_tokens=20_000, temperature=5, seed=1)
    leaving = asyncio.create_task(served.post("/v1/chat/completions", body))
    log = served.http.get(served.url + "/api/logs/fast?follow=1&lines=1&raw=1")
    async with log as following, asyncio.timeout(30):
        for _ in range(3):  # the first may be of an earlier request
            while b'"progress"' not in await following.content.readline():
                pass
        leaving.cancel()
        began = time.monotonic()
        await greedy(served, "fast", [user("Hi!")], max_tokens=1)
        assert time.monotonic() - began < 1.0


@pytest.mark.fault(6)
async def test_a_bad_model_path_ends_as_failed_and_the_reason_reaches_the_client(
    served: Served, tmp_path: Path
) -> None:
    bad = 'model = "/no/such/model"\n[restart]\nmax_failures = 1\n'
    served.write("bad", bad)
    try:
        await served.post("/api/reload")
        await served.until_state("bad", "failed", limit=60)
        answer = await served.ask("bad")
        assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
        assert "/no/such/model" in answer.json["error"]["message"]
        assert served.row("bad")["last_exit"]["meaning"] == "exit code 70: its generation thread died"
    finally:
        (served.profiles / "bad.toml").unlink()
        await served.post("/api/reload")


async def memory_after_use(served: Served, *names: str) -> int:
    """Bytes of all workers of these profiles, as status tells, once each profile has answered every prompt."""
    for name in names:
        for prompt in PROMPTS:
            await greedy(served, name, [user(prompt)], max_tokens=40)
    return sum(served.row(name)["memory_bytes"] or 0 for name in names)


async def test_presets_that_share_an_engine_take_the_memory_of_one_and_draft_as_they_say(
    served: Served,
) -> None:
    old = served.row("fast")["pid"]
    await served.post("/api/workers/fast/restart")
    await served.until(lambda: served.state("fast") == "ready" and served.row("fast")["pid"] != old, 60)
    one = await memory_after_use(served, "fast")
    shared = {f"shared-{name}": length for name, length in PRESETS.items()}
    for name, length in shared.items():
        served.write(name, preset(length, 'share_engine = true\ndrafters = ["model"]\n'))
    try:
        await served.post("/api/reload")
        await served.until_state("shared-max", "ready", limit=60)
        assert await memory_after_use(served, *shared) <= 1.1 * one
        expected = await greedy(served, "plain", [user(PROMPTS[0])])
        for name, length in shared.items():
            assert not await wrong(served, name, [user(PROMPTS[0])], expected)
            row = served.row(name)
            assert (row["pid"], row["num_draft_tokens"]) == (served.row("shared-fast")["pid"], length)
            assert len(row["speculation"]["rounds_by_draft_length"]) == length
            log = (await served.get(f"/api/logs/{name}?lines=1000&raw=1")).text.splitlines()
            own = [LINE.findall(line)[0] for line in log if f"[{name}] Draft tokens" in line]
            assert len(own) == len(PROMPTS) + 1
            assert row["acceptance"]["proposed"] == sum(int(proposed) for _, proposed, _ in own)
    finally:
        for name in shared:
            (served.profiles / f"{name}.toml").unlink()
        await served.post("/api/reload")
