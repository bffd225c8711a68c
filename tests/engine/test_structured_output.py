"""Answers in the form that was asked for, from a real engine with the demo pair."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from draftd.protocol import AUTO_DRAFT, DRAFT_HEADER, DRAFTERS_HEADER, GRAMMAR_DRAFTER, GRAMMARS_FIELD
from tests.engine.grammars.examples import OPENCODE_TOOLS, QUESTIONS, SCHEMAS, by_schema, tools_of
from tests.engine.served import Engine

CHAT = "/v1/chat/completions"
NO_DRAFTS, AUTO = {DRAFTERS_HEADER: ""}, {DRAFT_HEADER: AUTO_DRAFT}
MESSAGES = [{"role": "user", "content": QUESTIONS[0]}]


@pytest.fixture(scope="module")
def engine(pair: tuple[Path, Path]) -> Iterator[Engine]:
    made = Engine("--model", pair[0], "--draft-model", pair[1])
    try:
        yield made.listening()
    finally:
        made.stop()


def ask(engine: Engine, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    """Return the choice that an answer holds."""
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 400, "num_draft_tokens": 5} | body
    choice: dict[str, Any] = engine.ask(CHAT, headers or {}, **body)["choices"][0]
    return choice


@pytest.mark.parametrize("name", SCHEMAS)
def test_content_fits_its_schema_and_is_the_same_with_drafts(engine: Engine, name: str) -> None:
    field = by_schema(SCHEMAS[name])
    alone = ask(engine, NO_DRAFTS, **field)
    assert alone["finish_reason"] == "stop"
    jsonschema.validate(json.loads(alone["message"]["content"]), SCHEMAS[name])
    assert ask(engine, AUTO, **field) == alone
    assert ask(engine, **field) == alone
    warm = ask(engine, AUTO, temperature=1.0, seed=7, **field)
    jsonschema.validate(json.loads(warm["message"]["content"]), SCHEMAS[name])
    assert ask(engine, NO_DRAFTS, temperature=1.0, seed=7, **field) == warm


def calls_of(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"].get("tool_calls") or []
    ]


def test_calls_of_tools_fit_their_parameters(engine: Engine) -> None:
    """Those of OpenCode's tools whose arguments end by themselves."""
    body = {
        "tools": tools_of(OPENCODE_TOOLS),
        "parallel_tool_calls": False,
        "temperature": 1.0,
        "max_tokens": 600,
    }
    for name in ("read", "glob", "skill"):
        chosen = {"type": "function", "function": {"name": name}}
        choice = ask(engine, AUTO, tool_choice=chosen, seed=3, **body)
        assert choice["finish_reason"] == "tool_calls"
        ((called, arguments),) = calls_of(choice)
        assert called == name
        jsonschema.validate(arguments, OPENCODE_TOOLS[name])
        assert calls_of(ask(engine, NO_DRAFTS, tool_choice=chosen, seed=3, **body)) == [(called, arguments)]


def test_a_call_that_is_required_is_made(engine: Engine) -> None:
    body: dict[str, Any] = {
        "tools": tools_of({"now": {"type": "object", "properties": {}}}),
        "tool_choice": "required",
    }
    choice = ask(engine, parallel_tool_calls=False, **body)
    assert calls_of(choice) == [("now", {})]
    assert choice["message"]["content"] is None


@pytest.mark.fault(122)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_text_of_a_tool_fits_the_grammar_of_its_own(engine: Engine, temperature: float) -> None:
    definition = """start: "*** Begin" LF line+ "*** End"
    line: "+" /[a-z \\t"]{1,9}/ LF
    %import common.LF
    """
    body: dict[str, Any] = {
        "tools": tools_of({"patch": {"type": "object", "properties": {"input": {"type": "string"}}}}),
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": temperature,
        "seed": 5,
        GRAMMARS_FIELD: {"patch": {"syntax": "lark", "definition": definition}},
    }
    choice = ask(engine, AUTO, **body)
    ((name, arguments),) = calls_of(choice)
    assert name == "patch"
    assert re.fullmatch(r'\*\*\* Begin\n(\+[a-z \t"]{1,9}\n)+\*\*\* End', arguments["input"])
    assert calls_of(ask(engine, NO_DRAFTS, **body)) == [(name, arguments)]


def test_a_stream_has_the_same_answer(engine: Engine) -> None:
    field = by_schema(SCHEMAS["a person"])
    with engine.open(CHAT, AUTO, messages=MESSAGES, max_tokens=400, stream=True, **field) as response:
        events = [
            json.loads(line[6:]) for line in response.read().splitlines() if line.startswith(b"data: {")
        ]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == ask(engine, NO_DRAFTS, **field)["message"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_a_grammar_forces_is_drafted_and_counted(engine: Engine) -> None:
    engine.generation(lambda: ask(engine, AUTO, **by_schema(SCHEMAS["long keys"])))
    forced = engine.records("generation")[-1]["drafters"][GRAMMAR_DRAFTER]
    assert forced["accepted"] == forced["proposed"] > 30
    engine.generation(lambda: ask(engine, NO_DRAFTS, **by_schema(SCHEMAS["long keys"])))
    assert engine.records("generation")[-1]["drafters"] == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (by_schema({"type": "word"}), "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": tools_of({"f": {"type": "object", "properties": {"a": {"type": "string"}}}}),
                GRAMMARS_FIELD: {"f": {"syntax": "lark", "definition": "start: nowhere"}},
            },
            "tools",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_its_turn(
    engine: Engine, body: dict[str, Any], param: str
) -> None:
    text = json.dumps({"messages": MESSAGES, **body})
    status, answer = engine.post(CHAT, text, {"Content-Type": "application/json"})
    assert status == 400
    assert json.loads(answer)["error"]["param"] == param


def test_without_a_draft_model_it_is_the_same(engine: Engine, pair: tuple[Path, Path]) -> None:
    plain = Engine("--model", pair[0])
    try:
        for name in ("a person", "a tree"):
            field = by_schema(SCHEMAS[name])
            assert ask(plain.listening(), **field) == ask(engine, NO_DRAFTS, **field)
        assert plain.records("generation")[-1]["drafters"].keys() <= {GRAMMAR_DRAFTER, "lookup"}
        assert plain.records("generation")[-1]["drafters"][GRAMMAR_DRAFTER]["accepted"]
    finally:
        plain.stop()
