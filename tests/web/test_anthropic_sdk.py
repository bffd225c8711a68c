"""The official `anthropic` package as the client: its own types read answers, events and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from draftd.demo import DRAFT, TARGET
from tests.harness import QUICK, Served, fake, serving

if TYPE_CHECKING:  # the package takes seconds, in each process that collects
    import anthropic
    from anthropic.types import Message, MessageParam, ToolParam

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DEMO = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = 5\naliases = ["claude-demo"]\n'
HI: list[MessageParam] = [{"role": "user", "content": "What is speculative decoding?"}]
TOOLS: list[ToolParam] = [
    {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
]
KEY = "secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("messages"), {"demo": DEMO}, ready_limit=120) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    tables = QUICK + "[limits]\nconcurrency = 1\nqueue = 0\n"
    own = 'model = "org/model"\nautostart = false\n'
    profiles = {"a": fake(top='aliases = ["claude-a"]', tables=tables), "own": own}
    folder = tmp_path_factory.mktemp("messages")
    async with serving(folder, profiles, ready=False, api_key=KEY) as served:
        await served.until_state("a", "ready")
        yield served


def client_of(served: Served, key: str = KEY) -> anthropic.AsyncAnthropic:
    """A client that raises for an answer that does not fit its types."""
    import anthropic

    return anthropic.AsyncAnthropic(
        api_key=key, base_url=served.url, max_retries=0, timeout=60, _strict_response_validation=True
    )


def said(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


async def streamed(client: anthropic.AsyncAnthropic, **fields: Any) -> tuple[list[Any], Message]:
    """The kinds of the events that came, in order, and the message that the package makes of them."""
    async with client.messages.stream(**fields) as stream:
        kinds = [event.type async for event in stream]
        return kinds, await stream.get_final_message()


async def test_an_answer_and_its_stream_are_the_same_message(scripted: Served) -> None:
    fields: dict[str, Any] = {"model": "claude-a", "max_tokens": 3, "messages": said("hi")}
    async with client_of(scripted) as client:
        whole = await client.messages.create(**fields)
        kinds, message = await streamed(client, **fields)
    assert [block.model_dump() for block in whole.content] == [
        {"type": "text", "text": "one two three", "citations": None}
    ]
    assert (whole.type, whole.role, whole.model) == ("message", "assistant", "claude-a")
    assert (whole.stop_reason, whole.stop_sequence) == ("max_tokens", None)
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (7, 3)
    assert message.model_dump(exclude={"id", "parsed_output"}) == whole.model_dump(exclude={"id"})
    assert [kind for kind in kinds if kind != "text"] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_calls_of_tools_are_blocks_with_objects(scripted: Served) -> None:
    from anthropic.types import ToolUseBlock

    fields: dict[str, Any] = {
        "model": "a",
        "max_tokens": 9,
        "messages": said("[[tool-calls]]"),
        "tools": TOOLS,
    }
    async with client_of(scripted) as client:
        whole = await client.messages.create(**fields)
        _, message = await streamed(client, **fields)
    for one in (whole, message):
        assert one.stop_reason == "tool_use"
        calls = [block for block in one.content if isinstance(block, ToolUseBlock)]
        assert [(call.id, call.name, call.input) for call in calls] == [
            ("call-0", "weather", {"city": "Rome"}),
            ("call-1", "weather", {"city": "Oslo"}),
        ]


async def test_errors_are_the_ones_of_the_package(scripted: Served) -> None:
    import anthropic

    hi: dict[str, Any] = {"max_tokens": 5, "messages": said("hi")}
    async with client_of(scripted, "wrong") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model="a", **hi)
    async with client_of(scripted) as client:
        with pytest.raises(anthropic.NotFoundError, match="no model 'nope'") as missing:
            await client.messages.create(model="nope", **hi)
        assert missing.value.request_id
        body: Any = missing.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
        refused: dict[str, Any] = {
            "container": {"extra_body": {"container": "x"}},
            "tool_choice": {"tools": TOOLS, "tool_choice": {"type": "some"}},
            "output_config.format": {"extra_body": {"output_config": {"format": {"type": "grammar"}}}},
            "mesages": {"extra_body": {"mesages": []}},
            "only text": {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "http://evil.example/a.png"}}
                        ],
                    }
                ]
            },
        }
        for field, asked in refused.items():
            with pytest.raises(anthropic.BadRequestError, match=field):
                await client.messages.create(**{"model": "own", **hi, **asked})
        with pytest.raises(anthropic.InternalServerError):
            await client.messages.create(model="a", max_tokens=5, messages=said("[[status 500]]"))
        with pytest.raises(anthropic.APIStatusError, match="broken"):
            await streamed(client, model="a", max_tokens=5, messages=said("[[error-event]]"))


async def test_another_server_counts_by_reading(scripted: Served) -> None:
    async with client_of(scripted) as client:
        counted = await client.messages.count_tokens(model="a", messages=said("hi"), system="x", tools=TOOLS)
    assert counted.input_tokens == 7
    key = 'draftd_requests_total{endpoint="count_tokens",profile="a",status="200"}'
    assert (await scripted.metrics(headers={"x-api-key": KEY}))[key] == 1


async def test_models_are_told_with_their_aliases(scripted: Served) -> None:
    import anthropic

    async with client_of(scripted) as client:
        models = [model async for model in client.models.list()]
        alias = await client.models.retrieve("claude-a")
        with pytest.raises(anthropic.NotFoundError, match="there is no model 'claude-b'"):
            await client.models.retrieve("claude-b")
    assert [(model.id, model.type) for model in models] == [
        ("a", "model"),
        ("claude-a", "model"),
        ("own", "model"),
    ]
    assert alias == models[1]


@pytest.mark.real
async def test_the_demo_model_answers_counts_and_stops(demo: Served) -> None:
    import anthropic
    from anthropic.types import TextBlock

    fields: dict[str, Any] = {
        "model": "claude-demo",
        "max_tokens": 60,
        "messages": HI,
        "extra_body": {"temperature": 0},
    }
    async with client_of(demo) as client:
        whole = await client.messages.create(**fields)
        _, message = await streamed(client, **fields)
        read = 'draftd_prompt_tokens_total{profile="demo"}'
        before = (await demo.metrics())[read]
        counted = await client.messages.count_tokens(model="demo", messages=HI)
        assert (await demo.metrics())[read] == before
        assert isinstance(whole.content[0], TextBlock)
        text = whole.content[0].text
        assert text
        assert message.content[0].model_dump(exclude={"parsed_output"}) == whole.content[0].model_dump()
        assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
        assert message.usage.cache_read_input_tokens  # it was asked before
        stop = text[5:10]
        cut = await client.messages.create(**fields, stop_sequences=["nowhere", stop])
        assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
        assert (
            "".join(block.text for block in cut.content if isinstance(block, TextBlock))
            == text[: text.find(stop)]
        )
        with pytest.raises(
            anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 32768 maximum"
        ):
            await client.messages.create(model="demo", max_tokens=5, messages=said("word " * 40_000))
        long = await client.messages.count_tokens(model="demo", messages=said("word " * 40_000))
        assert long.input_tokens > 32768
