"""The official `openai` package as the client: its types read the answers strictly, and it retries as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from draftd.demo import DRAFT, TARGET
from tests.harness import QUICK, Served, chat, fake, serving

if TYPE_CHECKING:  # the package takes most of a second, in each process that collects
    import openai
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DEMO = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = 5\naliases = ["gpt-4o"]\n'
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is speculative decoding?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("sdk"), {"demo": DEMO}, ready_limit=120) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    tables = QUICK + "[limits]\nconcurrency = 1\nqueue = 0\n"
    async with serving(tmp_path_factory.mktemp("sdk"), {"a": fake(tables=tables)}) as served:
        yield served


def client_of(served: Served, **options: Any) -> openai.AsyncOpenAI:
    """A client that raises for an answer that does not fit its types."""
    import openai

    given: dict[str, Any] = {"api_key": "local", "max_retries": 0, "timeout": 30} | options
    return openai.AsyncOpenAI(base_url=served.url + "/v1", _strict_response_validation=True, **given)


async def streamed(client: openai.AsyncOpenAI, **fields: Any) -> list[Any]:
    stream = await client.chat.completions.create(stream=True, **fields)
    return [chunk async for chunk in stream]


@pytest.mark.real
async def test_an_answer_and_its_stream_are_the_same_text(demo: Served) -> None:
    async with client_of(demo) as client:
        fields: dict[str, Any] = {
            "model": "gpt-4o",
            "messages": HI,
            "temperature": 0,
            "max_completion_tokens": 60,
        }
        whole = await client.chat.completions.create(**fields)
        chunks = await streamed(client, **fields, stream_options={"include_usage": True})
    assert whole.choices[0].message.content
    assert (whole.object, whole.model, whole.choices[0].message.role) == (
        "chat.completion",
        "gpt-4o",
        "assistant",
    )
    assert (whole.created > 1_700_000_000, bool(whole.id)) == (True, True)
    assert whole.choices[0].finish_reason in {"stop", "length"}
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    *parts, usage = chunks
    assert "".join(c.choices[0].delta.content or "" for c in parts) == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in parts] == [None] * (len(parts) - 1) + [
        whole.choices[0].finish_reason
    ]
    assert {(c.id, c.created, c.model, c.object) for c in chunks} == {
        (chunks[0].id, chunks[0].created, "gpt-4o", "chat.completion.chunk")
    }
    assert (usage.choices, usage.usage.completion_tokens) == ([], whole.usage.completion_tokens)
    assert all(c.usage is None for c in parts)


@pytest.mark.real
async def test_the_synchronous_client_gets_the_same(demo: Served) -> None:
    import openai

    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(
            api_key="x", base_url=demo.url + "/v1", _strict_response_validation=True
        ) as client:
            whole = client.chat.completions.create(model="demo", messages=HI, temperature=0, max_tokens=30)
            with client.chat.completions.create(
                model="demo", messages=HI, temperature=0, max_tokens=30, stream=True
            ) as stream:
                return whole.choices[0].message.content, "".join(
                    c.choices[0].delta.content or "" for c in stream
                )

    whole, stream = await asyncio.to_thread(ask)
    assert whole
    assert whole == stream


@pytest.mark.real
async def test_models_texts_tools_and_probabilities_fit_the_types(demo: Served) -> None:
    async with client_of(demo) as client:
        models = [model async for model in client.models.list()]
        assert [(m.id, m.object) for m in models] == [("demo", "model")]
        assert (await client.models.retrieve("gpt-4o")).id == "demo"
        text = await client.completions.create(model="demo", prompt="Hi", max_tokens=5)
        assert (text.object, text.choices[0].finish_reason) == ("text_completion", "length")
        tools = await client.chat.completions.create(
            model="demo", messages=HI, tools=TOOLS, tool_choice="auto", max_tokens=40
        )
        assert tools.choices[0].finish_reason in {"stop", "length", "tool_calls"}
        likely = await client.chat.completions.create(
            model="demo", messages=HI, logprobs=True, max_tokens=4, temperature=0
        )
        assert likely.choices[0].logprobs is not None
        assert likely.choices[0].logprobs.content is not None
        assert all(entry.token and entry.logprob <= 0 for entry in likely.choices[0].logprobs.content)


@pytest.mark.real
async def test_a_model_that_never_thinks_has_no_effort_but_none(demo: Served) -> None:
    import openai

    asked: dict[str, Any] = {"model": "demo", "messages": HI, "max_tokens": 4, "temperature": 0}
    async with client_of(demo) as client:
        free = await client.chat.completions.create(**asked)
        none = await client.chat.completions.create(**asked, reasoning_effort="none")
        assert none.choices[0].message == free.choices[0].message
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**asked, reasoning_effort="high")
    assert caught.value.param == "reasoning_effort"


@pytest.mark.real
@pytest.mark.fault(50)
async def test_log_probabilities_are_the_same_streamed_or_not_in_both_endpoints(demo: Served) -> None:
    import openai

    asked: dict[str, Any] = {"model": "demo", "max_tokens": 20, "temperature": 0}
    async with client_of(demo) as client:
        chat: dict[str, Any] = {**asked, "messages": HI, "logprobs": True, "top_logprobs": 20}
        choice = (await client.chat.completions.create(**chat)).choices[0]
        assert choice.logprobs is not None
        entries = choice.logprobs.content or []
        assert "".join(entry.token for entry in entries) == choice.message.content
        assert {len(entry.top_logprobs) for entry in entries} == {20}
        parts = [chunk.choices[0].logprobs for chunk in await streamed(client, **chat)]
        tokens = [entry.token for part in parts if part for entry in part.content or []]
        assert tokens == [entry.token for entry in entries]
    async with openai.AsyncOpenAI(api_key="x", base_url=demo.url + "/v1") as client:
        text: dict[str, Any] = {**asked, "prompt": "Hi", "logprobs": 2}
        whole = (await client.completions.create(**text)).choices[0]
        assert whole.logprobs is not None
        assert whole.logprobs.tokens
        assert "".join(whole.logprobs.tokens) == whole.text
        stream = await client.completions.create(**text, stream=True)
        pieces = [chunk.choices[0].logprobs async for chunk in stream if chunk.choices[0].logprobs]
        assert [token for piece in pieces for token in piece.tokens or []] == whole.logprobs.tokens


@pytest.mark.real
@pytest.mark.fault(49)
async def test_a_stop_text_ends_an_answer_that_goes_on_without_it(demo: Served) -> None:
    asked: dict[str, Any] = {"model": "demo", "messages": HI, "max_tokens": 60, "temperature": 0}
    async with client_of(demo) as client:
        full = (await client.chat.completions.create(**asked)).choices[0].message.content or ""
        for begin in range(3, 20, 4):
            stop = full[begin : begin + 5]
            choice = (await client.chat.completions.create(**asked, stop=[stop])).choices[0]
            chunks = await streamed(client, **asked, stop=stop)
            told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert choice.message.content == told == full[: full.find(stop)]
            assert choice.finish_reason == chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.real
@pytest.mark.fault(52)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_is_too_long_is_refused_as_openai_does(demo: Served, stream: bool) -> None:
    import openai

    asked: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "word " * 40_000}]}
    async with client_of(demo) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**asked, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert "32768" in str(caught.value)


@pytest.mark.real
async def test_a_text_comes_as_a_stream_too(demo: Served) -> None:
    # OpenAI's own streams do not fit its strict type here: it has no place for a finish_reason that is null.
    import openai

    async with openai.AsyncOpenAI(api_key="x", base_url=demo.url + "/v1") as client:
        fields: dict[str, Any] = {"model": "demo", "prompt": "Hi", "max_tokens": 5, "temperature": 0}
        whole = await client.completions.create(**fields)
        stream = await client.completions.create(**fields, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {c.object for c in chunks} == {"text_completion"}


async def test_pieces_of_tool_calls_come_with_their_index_and_join(scripted: Served) -> None:
    fields: dict[str, Any] = {
        "model": "a",
        "messages": [{"role": "user", "content": "[[tool-calls]]"}],
        "tools": TOOLS,
    }
    async with client_of(scripted) as client:
        whole = (await client.chat.completions.create(**fields)).choices[0]
        chunks = await streamed(client, **fields)
        async with client.chat.completions.stream(**fields) as stream:
            accumulated = (await stream.get_final_completion()).choices[0]
    assert [call.index for c in chunks for call in c.choices[0].delta.tool_calls or []] == [0, 1]
    for choice in (whole, accumulated):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        calls = [call for call in choice.message.tool_calls if call.type == "function"]
        assert [(c.id, json.loads(c.function.arguments)["city"]) for c in calls] == [
            ("call-0", "Rome"),
            ("call-1", "Oslo"),
        ]


async def test_errors_are_the_ones_of_the_package(scripted: Served) -> None:
    import openai

    async with client_of(scripted) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="nope", messages=HI)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert missing.value.request_id
        with pytest.raises(openai.BadRequestError, match="messages") as bad:
            await client.chat.completions.create(model="a", messages=[])
        assert (bad.value.type, bad.value.param) == ("invalid_request_error", "messages")
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(
                model="a", messages=[{"role": "user", "content": "[[status 500]]"}]
            )
        with pytest.raises(openai.APIError, match="broken"):
            await streamed(client, model="a", messages=[{"role": "user", "content": "[[error-event]]"}])


async def test_it_comes_again_when_it_is_told_to(scripted: Served) -> None:
    async def ask(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.with_raw_response.create(model="a", messages=HI)

    async with asyncio.TaskGroup() as tasks, client_of(scripted, max_retries=2) as client:
        body = chat("[[slow 0.1]]", model="a", stream=True)
        async with scripted.http.post(scripted.url + "/v1/chat/completions", json=body) as first:
            await first.content.readany()  # it has the only slot, and nobody may wait
            again = tasks.create_task(ask(client))
            await first.read()
        answer = await again
    assert (answer.retries_taken, answer.http_response.status_code) == (1, 200)


async def test_it_does_not_come_again_where_that_cannot_help(scripted: Served) -> None:
    import openai

    key = 'draftd_requests_total{endpoint="chat.completions",profile="a",status="503"}'
    await scripted.post("/api/workers/a/stop")
    await scripted.until_state("a", "stopped")
    try:
        async with client_of(scripted, max_retries=5) as client:
            with pytest.raises(openai.InternalServerError, match="draftd start a") as caught:
                await client.chat.completions.create(model="a", messages=HI)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert (await scripted.metrics())[key] == 1
    finally:
        await scripted.post("/api/workers/a/start")
        await scripted.until_state("a", "ready")
