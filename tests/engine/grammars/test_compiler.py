"""What may follow, by the grammars of whole answers: on the demo pair's tokenizer, with other models' marks."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer
from mlx_lm.tool_parsers import (
    function_gemma,
    glm47,
    json_tools,
    kimi_k2,
    kimi_k3,
    longcat,
    minicpm5,
    minimax_m2,
    mistral,
    muse_spark,
    pythonic,
    qwen3_coder,
)

from draftd.demo import TARGET
from draftd.engine.answers.tool_calls import parse
from draftd.engine.grammars import compiler as compiling
from draftd.engine.grammars.call_forms import CALL_FORMS
from draftd.engine.grammars.compiler import Compiler
from draftd.engine.grammars.requested import Requested, requested
from draftd.engine.refusals import RefusedRequestError

VOCABULARY = 6144
SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "count": {"type": "integer"},
        "how": {"enum": ["slow", "fast"]},
    },
    "required": ["path"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("read", "write")
]
MUST = {"tools": TOOLS, "tool_choice": "required"}
STRICT = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
MAY = {"tools": STRICT, "parallel_tool_calls": False}
JSON = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}
CALL = '<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "count": 3}}\n</tool_call>'
SPECIAL_MARKS, PLAIN_MARKS = ("<tools>", "</tools>"), ("[think]", "[/think]")


def compiler(parser: Any = json_tools, thinking: tuple[str, str] | None = None) -> Compiler:
    """Return one for the demo pair's tokenizer, as if its model called and thought like another."""
    made = TokenizerWrapper(
        load_tokenizer(TARGET)._tokenizer,
        tool_parser=parser and parser.parse_tool_call,
        tool_call_start=parser and parser.tool_call_start,
        tool_call_end=parser and parser.tool_call_end,
    )
    if thinking:
        made._think_start, made._think_end = thinking
        made._think_start_tokens = made._think_end_tokens = (0,)
    return Compiler(made, VOCABULARY)


def answers(made: Compiler, body: dict[str, Any], text: str, **how: Any) -> str:
    """Return what a text is for a form: `whole`, the `beginning` of an answer, or `wrong`."""
    form = requested(body)
    assert form is not None
    matcher = made.compile(form, **how)
    tokens = made.tokenizer.encode(text, add_special_tokens=False)
    if matcher.validate_tokens(tokens) < len(tokens):
        return "wrong"
    assert matcher.consume_tokens(tokens)
    return "whole" if matcher.is_accepting() else "beginning"


@pytest.mark.parametrize(
    ("body", "text", "kind"),
    [
        (JSON, '{"path": "a.py"}', "whole"),
        (JSON, '{"path": "a.py", "how": "fast"}', "whole"),
        (JSON, '{"path": "a.py", "how": ', "beginning"),
        (JSON, '{"path": "a.py", "how": "soon"}', "wrong"),
        (JSON, '{"count": 3}', "wrong"),
        (JSON, "Here it is: {", "wrong"),
        (JSON, CALL, "wrong"),
        ({"response_format": {"type": "json_object"}}, '{"a": [1, {"b": null}]}', "whole"),
        ({"response_format": {"type": "json_object"}}, "[1]", "wrong"),
        (MUST, CALL, "whole"),
        (MUST, f"{CALL}\n{CALL}", "whole"),
        (MUST, CALL.replace("read", "write"), "whole"),
        (MUST, CALL.replace("read", "erase"), "wrong"),
        (MUST, CALL.replace('"a.py"', "7"), "wrong"),
        (MUST, "I shall read it.", "wrong"),
        (MUST | {"parallel_tool_calls": False}, CALL, "whole"),
        (MUST | {"parallel_tool_calls": False}, f"{CALL}\n{CALL}", "wrong"),
        (MAY, "There is nothing to read.", "whole"),
        (MAY, f"I shall read it. {CALL}", "whole"),
        (MAY, CALL.replace('"a.py"', "7"), "wrong"),
        (MAY, f"{CALL}\n{CALL}", "wrong"),
        (JSON | {"tools": TOOLS}, '{"path": "a.py"}', "whole"),
        (JSON | {"tools": TOOLS}, CALL, "whole"),
        (JSON | {"tools": TOOLS}, "Something else.", "wrong"),
    ],
)
def test_an_answer_has_the_form_that_was_asked_for(body: dict[str, Any], text: str, kind: str) -> None:
    assert answers(compiler(), body, text) == kind


CALLS = {
    "json_tools": (json_tools, CALL),
    "mistral": (mistral, '[TOOL_CALLS]read[ARGS]{"path": "a.py", "count": 3}'),
    "qwen3_coder": (
        qwen3_coder,
        "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n<parameter=count>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
    ),
    "glm47": (
        glm47,
        "<tool_call>read\n<arg_key>path</arg_key>\n<arg_value>a.py</arg_value>\n<arg_key>count</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
    ),
    "longcat": (
        longcat,
        "<longcat_tool_call>read\n<longcat_arg_key>path</longcat_arg_key>\n<longcat_arg_value>a.py"
        "</longcat_arg_value>\n<longcat_arg_key>count</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n"
        "</longcat_tool_call>",
    ),
    "kimi_k2": (
        kimi_k2,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>"
        '{"path": "a.py", "count": 3}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    "kimi_k3": (
        kimi_k3,
        '<|open|>tools<|sep|><|open|>call tool="read" index="1"<|sep|>'
        '<|open|>argument key="path" type="string"<|sep|>a.py<|close|>argument<|sep|>'
        '<|open|>argument key="count" type="integer"<|sep|>3<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>",
    ),
    "minimax_m2": (
        minimax_m2,
        '<minimax:tool_call>\n<invoke name="read">\n<parameter name="path">a.py</parameter>\n'
        '<parameter name="count">3</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    "muse_spark": (
        muse_spark,
        '<atem:function_calls>\n<atem:invoke name="read">\n<atem:parameter name="path">"a.py"</atem:parameter>\n'
        '<atem:parameter name="count">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
    ),
    "minicpm5": (
        minicpm5,
        '<function name="read"><param name="path">a.py</param><param name="count">3</param></function>',
    ),
    "pythonic": (pythonic, '<|tool_call_start|>[read(path="a.py", count=3)]<|tool_call_end|>'),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_written_as_the_model_writes_it_and_can_be_read(name: str) -> None:
    parser, call = CALLS[name]
    made = compiler(parser)
    assert answers(made, MUST, call) == "whole"
    assert answers(made, MUST, call.replace("3", "three")) == "wrong"
    assert answers(made, MAY, f"Let me see. {call}") == "whole"
    inner = call.removeprefix(parser.tool_call_start).removesuffix(parser.tool_call_end)
    read, *others = parse(parser.parse_tool_call, inner, TOOLS) or []
    assert not others
    assert read["function"]["name"] == "read"
    assert json.loads(read["function"]["arguments"]) == {"path": "a.py", "count": 3}


@pytest.mark.parametrize("name", CALLS)
def test_a_text_and_what_is_none_are_read_as_what_the_schema_says(name: str) -> None:
    """A text that looks like a number stays a text."""
    parser, call = CALLS[name]
    made = compiler(parser)
    text = call.replace("a.py", "7")
    assert answers(made, MUST, text) == "whole"
    inner = text.removeprefix(parser.tool_call_start).removesuffix(parser.tool_call_end)
    assert (
        json.loads((parse(parser.parse_tool_call, inner, TOOLS) or [])[0]["function"]["arguments"])["path"]
        == "7"
    )


def test_what_may_be_left_out_of_a_call_may_be_left_out() -> None:
    parser, call = CALLS["qwen3_coder"]
    assert (
        answers(compiler(parser), MUST, call.replace("<parameter=count>\n3\n</parameter>\n", "")) == "whole"
    )
    without = call.replace("<parameter=path>\na.py\n</parameter>\n", "")
    assert answers(compiler(parser), MUST, without) == "wrong"


LISTS = [
    ("[read(path=1)]", "wrong"),
    ('[read(count=3, path="a")]', "wrong"),
    ('[read(path="a", how="slow")]', "whole"),
    ('[read(path="a"), write(path="b", count=1)]', "whole"),
    ('[read(path="a",)]', "wrong"),
    ("[free()]", "whole"),
    ("[free(b=2)]", "whole"),
    ("[free(a=1, b=2)]", "whole"),
    ("[free(, b=2)]", "wrong"),
    ("[nothing()]", "whole"),
]


@pytest.mark.parametrize(("text", "kind"), LISTS)
def test_arguments_that_may_be_left_out_leave_no_comma_behind(text: str, kind: str) -> None:
    numbers = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    nothing = {"type": "object", "properties": {}}
    more = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in (("free", numbers), ("nothing", nothing))
    ]
    body = {"tools": [*TOOLS, *more], "tool_choice": "required"}
    assert answers(compiler(pythonic), body, f"<|tool_call_start|>{text}<|tool_call_end|>") == kind


@pytest.mark.parametrize("name", CALLS)
def test_several_calls_follow_each_other_and_are_read_as_several(name: str) -> None:
    parser, call = CALLS[name]
    form = CALL_FORMS[name]
    inner = call.removeprefix(form.start).removesuffix(form.end)
    text = f"{form.start}{inner}{form.between}{inner}{form.end}"
    assert answers(compiler(parser), MUST, text) == "whole"
    assert answers(compiler(parser), MUST | {"parallel_tool_calls": False}, text) == "wrong"
    if form.end:  # all stand between one pair of marks
        inside = text.removeprefix(parser.tool_call_start).removesuffix(parser.tool_call_end)
        assert len(parse(parser.parse_tool_call, inside, TOOLS) or []) == 2


@pytest.mark.parametrize("marks", [SPECIAL_MARKS, PLAIN_MARKS], ids=["special tokens", "plain text"])
def test_a_model_may_think_first(marks: tuple[str, str]) -> None:
    made, (begin, end) = compiler(thinking=marks), marks
    answer = '{"path": "a.py"}'
    assert answers(made, JSON, answer) == "whole"
    assert answers(made, JSON, f"{begin}\nA file, {{ of course.\n{end}\n\n{answer}") == "whole"
    assert answers(made, JSON, f"{begin}\nA file, of course. {answer}") == "beginning"
    assert answers(made, JSON, f"{begin}\nA file.\n{end}\n\nHere it is: ") == "wrong"
    assert answers(made, JSON, f"A file.\n{end}\n\n{answer}") == "wrong"


@pytest.mark.parametrize("marks", [SPECIAL_MARKS, PLAIN_MARKS], ids=["special tokens", "plain text"])
def test_an_answer_may_begin_in_the_middle_of_its_thoughts(marks: tuple[str, str]) -> None:
    made = compiler(thinking=marks)
    assert answers(made, JSON, f'A file.\n{marks[1]}\n\n{{"path": "a.py"}}', thinking=True) == "whole"
    assert answers(made, JSON, '{"path": "a.py"}', thinking=True) == "beginning"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "word"}}}},
            "response_format",
            "response_format: its schema cannot be enforced: Invalid type: word",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": 3}}}
                ]
            },
            "tools",
            "the parameters of 'f' cannot be enforced",
        ),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_the_reason(
    body: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(RefusedRequestError, match=words) as refused:
        answers(compiler(), body, "")
    assert refused.value.param == param
    assert "\n" not in str(refused.value)


def test_a_tool_that_does_not_insist_on_its_schema_takes_any_object() -> None:
    body = {"tools": [{"type": "function", "function": {"name": "read", "parameters": {"type": 3}}}]}
    assert answers(compiler(), body | {"tool_choice": "required"}, CALL) == "whole"


@pytest.mark.parametrize(("parser", "name"), [(function_gemma, "function_gemma"), (None, "none")])
def test_a_model_whose_calls_cannot_be_enforced_says_so(parser: Any, name: str) -> None:
    with pytest.raises(RefusedRequestError, match=rf"a form \({name}\) that cannot be enforced") as refused:
        answers(compiler(parser), MUST, "")
    assert refused.value.param == "tool_choice"
    assert answers(compiler(parser), JSON, '{"path": "a.py"}') == "whole"  # content is no call


def test_a_grammar_is_compiled_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counting:
        validate_grammar = staticmethod(LLMatcher.validate_grammar)

        def __new__(cls, tokens: Any, grammar: str, **how: Any) -> Any:
            made.append(grammar)
            return LLMatcher(tokens, grammar, **how)

    monkeypatch.setattr(compiling, "LLMatcher", Counting)
    monkeypatch.setattr(compiling, "MAX_KNOWN", 2)
    known = compiler()
    for body in (JSON, MUST, JSON):
        assert answers(known, body, "I") == "wrong"
    assert len(made) == 2
    answers(known, MAY, "I")
    answers(known, JSON, "I")  # used last but one, so it is still there
    assert len(made) == 3
    answers(known, MUST, "I")
    assert len(made) == 4


def _nested(depth: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": _nested(depth - 1)}} if depth else {"type": "null"}


@pytest.mark.fault(222)
@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#"}, "without an end"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "without an end"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 10**5}, "more than 10,000 items"),
        (_nested(200), "more than 100 objects and lists within each other"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ],
)
def test_a_schema_that_would_fail_once_the_answer_has_begun_is_refused(schema: Any, reason: str) -> None:
    made = compiler()
    with pytest.raises(RefusedRequestError, match=reason):
        made.compile(
            _required({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})
        )
    function = {"name": "read", "parameters": schema}
    loose = {"tools": [{"type": "function", "function": function}]}
    strict = {"tools": [{"type": "function", "function": function | {"strict": True}}]}
    assert not made.compile(_required(loose | {"tool_choice": "required"})).is_error()  # any object will do
    with pytest.raises(RefusedRequestError, match=reason):
        made.compile(_required(strict))


def _required(body: dict[str, Any]) -> Requested:
    form = requested(body)
    assert form is not None
    return form
