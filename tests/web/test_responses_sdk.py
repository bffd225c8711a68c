"""The official `openai` package as a client of `/v1/responses`: its own types read answers, events and errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from draftd.demo import DRAFT, TARGET
from tests.harness import QUICK, Served, fake, serving

if TYPE_CHECKING:  # the package takes most of a second, in each process that collects
    import openai
    from openai.types.responses import Response

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DEMO = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = 5\naliases = ["gpt-4o"]\n'
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "weather",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("responses"), {"demo": DEMO}, ready_limit=120) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    tables = QUICK + "[limits]\nconcurrency = 1\nqueue = 0\n"
    profiles = {
        "a": fake(top='aliases = ["gpt-a"]', tables=tables),
        "own": 'model = "org/model"\nautostart = false\n',
    }
    folder = tmp_path_factory.mktemp("responses")
    async with serving(folder, profiles, ready=False, keepalive_interval=0.2) as served:
        await served.until_state("a", "ready")
        yield served


def client_of(served: Served) -> openai.AsyncOpenAI:
    """A client that raises for an answer that does not fit its types."""
    import openai

    return openai.AsyncOpenAI(
        api_key="x",
        base_url=served.url + "/v1",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    )


async def streamed(client: openai.AsyncOpenAI, **fields: Any) -> tuple[list[str], Response]:
    """The kinds of the events that came, whose numbers must be consecutive, and the last one's response."""
    stream = await client.responses.create(stream=True, **fields)
    events: list[Any] = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return [event.type for event in events], events[-1].response


def as_said(response: Response) -> list[dict[str, Any]]:
    """The items without their ids."""
    return [item.model_dump(exclude={"id"}) for item in response.output]


async def test_an_answer_and_its_stream_are_the_same_response(scripted: Served) -> None:
    fields: dict[str, Any] = {"model": "gpt-a", "input": "hi", "max_output_tokens": 3, "metadata": {"a": "b"}}
    async with client_of(scripted) as client:
        whole = await client.responses.create(**fields)
        kinds, response = await streamed(client, **fields)
    assert (whole.output_text, whole.model, whole.object) == ("one two three", "gpt-a", "response")
    assert (whole.status, whole.metadata, whole.parallel_tool_calls) == ("incomplete", {"a": "b"}, True)
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (7, 3, 10)
    changes = {"id", "created_at", "output"}
    assert response.model_dump(exclude=changes) == whole.model_dump(exclude=changes)
    assert as_said(response) == as_said(whole)
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]


async def test_the_package_puts_a_stream_together(scripted: Served) -> None:
    async with (
        client_of(scripted) as client,
        client.responses.stream(model="a", input="[[tool-calls]]", tools=[WEATHER]) as stream,  # type: ignore[list-item]
    ):
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    calls: list[Any] = [item for item in response.output if item.type != "message"]
    assert [(call.type, call.call_id, call.name, call.arguments) for call in calls] == [
        ("function_call", "call-0", "weather", '{"city": "Rome"}'),
        ("function_call", "call-1", "weather", '{"city": "Oslo"}'),
    ]


async def test_a_custom_tool_is_called_with_a_text(scripted: Served) -> None:
    from openai.types.responses import ResponseCustomToolCall

    fields: dict[str, Any] = {
        "model": "a",
        "input": "[[tool-calls]]",
        "tools": [PATCH, {"type": "web_search"}],
    }
    async with client_of(scripted) as client:
        whole = await client.responses.create(**fields)
        kinds, response = await streamed(client, **fields)
    for one in (whole, response):
        calls = [item for item in one.output if isinstance(item, ResponseCustomToolCall)]
        # What is not in the form of the one argument is passed on as it is.
        assert [call.input for call in calls] == ['{"city": "Rome"}', '{"city": "Oslo"}']
        assert [tool.type for tool in one.tools] == ["custom"]
    assert kinds.count("response.custom_tool_call_input.done") == 2


async def test_a_long_wait_is_filled_with_events(scripted: Served) -> None:
    async with client_of(scripted) as client:
        kinds, _ = await streamed(client, model="a", input="[[wait 0.7]]", max_output_tokens=3)
    assert kinds[:4] == ["response.created", *["response.in_progress"] * 3]
    assert kinds[-1] == "response.incomplete"


async def test_a_stream_that_breaks_ends_as_failed(scripted: Served) -> None:
    import openai

    async with client_of(scripted) as client:
        kinds, response = await streamed(client, model="a", input="[[error-event]]")
        assert (kinds[-1], response.status) == ("response.failed", "failed")
        assert response.error is not None
        assert response.error.code == "server_error"
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="a", input="[[error-event]]")


async def test_what_is_not_supported_is_refused_by_its_name(scripted: Served) -> None:
    import openai

    refused: dict[str, dict[str, Any]] = {
        "previous_response_id": {"previous_response_id": "resp_1"},
        "store": {"store": True},
        "background": {"background": True},
        "include": {"include": ["message.output_text.logprobs"]},
        "text.format.type": {"text": {"format": {"type": "grammar"}}},
        "tool_choice": {"tools": [WEATHER], "tool_choice": {"type": "web_search"}},
        "inptu": {"extra_body": {"inptu": "x"}},
        "input": {"input": []},
        "reasoning.effort": {"reasoning": {"effort": "huge"}},
    }
    async with client_of(scripted) as client:
        for field, asked in refused.items():
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(**{"model": "own", "input": "hi", **asked})
            assert caught.value.param == field
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="nope", input="hi")


@pytest.mark.real
async def test_the_demo_model_answers_and_goes_on(demo: Served) -> None:
    import openai
    from openai.types.responses import ResponseCustomToolCall, ResponseFunctionToolCall

    fields: dict[str, Any] = {
        "model": "gpt-4o",
        "instructions": "Be brief.",
        "input": "What is speculative decoding?",
        "temperature": 0,
        "max_output_tokens": 60,
    }
    async with client_of(demo) as client:
        whole = await client.responses.create(**fields)
        kinds, response = await streamed(client, **fields)
        assert whole.output_text
        assert response.output_text == whole.output_text
        assert response.usage is not None
        assert response.usage.input_tokens_details.cached_tokens  # it was asked before
        history: list[Any] = [{"role": "user", "content": fields["input"]}, *whole.output]
        further = await client.responses.create(
            **fields | {"input": [*history, {"role": "user", "content": "Why?"}]}
        )
        assert further.output_text
        assert further.usage is not None
        assert further.usage.input_tokens > response.usage.input_tokens
        schema = {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        }
        form: Any = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
        formed = await client.responses.create(**fields, text=form)
        assert formed.output_text.startswith('{"a"')
        strict: Any = {**WEATHER, "strict": True}
        called = await client.responses.create(
            **fields, tools=[strict], tool_choice={"type": "function", "name": "weather"}
        )
        assert isinstance(called.output[0], ResponseFunctionToolCall)
        form = {"type": "grammar", "syntax": "regex", "definition": '"[a-z]{2,9}"'}
        custom: Any = {"type": "custom", "name": "patch", "format": form}
        patched = await client.responses.create(
            **fields, tools=[custom], tool_choice={"type": "custom", "name": "patch"}
        )
        assert isinstance(patched.output[0], ResponseCustomToolCall)
        assert re.fullmatch('"[a-z]{2,9}"', patched.output[0].input)
        custom["format"] = {**form, "definition": "(?=x)"}
        with pytest.raises(openai.BadRequestError, match="look-around") as refused:
            await client.responses.create(**fields, tools=[custom])
        assert refused.value.param == "tools"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="demo", input="word " * 40_000)
    assert caught.value.code == "context_length_exceeded"
    assert kinds[-1] in {"response.completed", "response.incomplete"}
