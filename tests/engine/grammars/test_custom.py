"""Grammars of clients for the text of a tool: what they allow stays the same, as JSON and as it is."""

import json
import re
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from mlx_lm.tool_parsers import glm47, json_tools, qwen3_coder

from draftd.engine.answers.tool_calls import parse
from draftd.engine.grammars.custom import GrammarError, TextGrammar
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import GRAMMARS_FIELD
from tests.engine.grammars.test_compiler import answers, compiler

# As Codex sends it with its tool apply_patch (openai/codex, Apache-2.0).
APPLY_PATCH = """start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
PATCH = (
    '*** Begin Patch\n*** Add File: a "b".py\n+print("\\n")\n+\n'
    "*** Update File: c.py\n@@\n-\tx\n+é\n*** End Patch"
)
# An expression in brackets: it refers to itself.
SUM = 'start: sum\nsum: NUMBER | "(" sum "+" sum ")"\n%import common.NUMBER\n%ignore " "'
FUNCTION = {
    "name": "patch",
    "parameters": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
}
LOOK = {"name": "look", "parameters": {"type": "object", "properties": {}}}


def body(definition: str, syntax: str = "lark", choice: Any = "required") -> dict[str, Any]:
    tools = [{"type": "function", "function": function} for function in (FUNCTION, LOOK)]
    grammars = {"patch": {"syntax": syntax, "definition": definition}}
    return {"tools": tools, "tool_choice": choice, GRAMMARS_FIELD: grammars}


def call(text: str, parser: Any = json_tools) -> str:
    """A call with this text, as a model writes it."""
    if parser is qwen3_coder:
        inner = f"\n<function=patch>\n<parameter=input>\n{text}\n</parameter>\n</function>\n"
    elif parser is glm47:
        inner = f"patch\n<arg_key>input</arg_key>\n<arg_value>{text}</arg_value>\n"
    else:
        arguments = json.dumps({"input": text}, ensure_ascii=False)
        inner = f'\n{{"name": "patch", "arguments": {arguments}}}\n'
    return f"<tool_call>{inner}</tool_call>"


PARSERS = [json_tools, qwen3_coder, glm47]


@pytest.mark.fault(122)
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__.rpartition(".")[2])
@pytest.mark.parametrize(
    ("definition", "text", "kind"),
    [
        (APPLY_PATCH, PATCH, "whole"),
        (APPLY_PATCH, PATCH + "\n", "whole"),
        (APPLY_PATCH, PATCH.replace("*** End Patch", ""), "wrong"),
        (APPLY_PATCH, PATCH.replace("\n-\tx", "\nx"), "wrong"),
        (APPLY_PATCH, "Here it is.", "wrong"),
        (SUM, "((1 + 2) + 3.5)", "whole"),
        (SUM, "((1 + 2) + )", "wrong"),
        ("start: /(.|\\n)+/", 'a </b>\n</c> \\ "d"', "whole"),
        ('start: a\na: A -> one\nA: "x".."z"', "y", "whole"),
        ('start: a\na: A -> one\nA: "x".."z"', "w", "wrong"),
        (
            '?start: (WORD (" " | WS_INLINE)?)~2\n%import common (WORD, WS_INLINE) // both',
            "two\twords",
            "whole",
        ),
        ('start: "Select"i /[^;]/+ ";"', 'sELECT "a"\n\t;', "whole"),
    ],
)
def test_a_text_has_the_form_that_the_client_gave(parser: Any, definition: str, text: str, kind: str) -> None:
    made = compiler(parser)
    assert answers(made, body(definition), call(text, parser)) == kind
    if kind == "whole":
        assert answers(made, body(definition, choice="auto"), f"Now: {call(text, parser)}") == "whole"
        inner = call(text, parser).removeprefix("<tool_call>").removesuffix("</tool_call>")
        read = parse(parser.parse_tool_call, inner, body(definition)["tools"])
        assert read is not None
        assert json.loads(read[0]["function"]["arguments"])["input"].strip() == text.strip()


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__.rpartition(".")[2])
def test_another_tool_and_a_text_without_calls_stay_possible(parser: Any) -> None:
    look = {
        json_tools: '\n{"name": "look", "arguments": {}}\n',
        qwen3_coder: "\n<function=look>\n</function>\n",
        glm47: "look\n",
    }
    made = compiler(parser)
    assert answers(made, body(APPLY_PATCH), f"<tool_call>{look[parser]}</tool_call>") == "whole"
    assert answers(made, body(APPLY_PATCH, choice="auto"), "There is nothing to patch.") == "whole"


def test_a_regular_expression_is_a_grammar_too() -> None:
    made = compiler()
    assert answers(made, body(r"\d{4}/\d\d", "regex"), call("2026/11")) == "whole"
    assert answers(made, body(r"\d{4}/\d\d", "regex"), call("2026-11")) == "wrong"
    assert answers(made, body('a\n"b"', "regex"), call('a\n"b"')) == "whole"


@pytest.mark.parametrize(
    ("definition", "syntax", "words"),
    [
        ("start: a b\na: /x/", "lark", 'unknown name: "b"'),
        ("start: /(/", "lark", "invalid regex .* unclosed group"),
        ("(?=a)", "regex", "look-around, including look-ahead and look-behind, is not supported"),
        ("start: %json {}", "lark", "line 1: '%json {}'"),
        ("a: /x/\nstart: <|im_end|>", "lark", "line 2: '<|im_end|>'"),
        ("start: @other", "lark", "line 1: '@other'"),
        ("start: X\n%import python.X", "lark", "only Lark's common terminals can be imported"),
        ("start: X\n%import common.NOTHING", "lark", "only Lark's common terminals can be imported"),
        ("start: /a/i", "lark", "flags cannot be enforced for a model that writes calls as JSON"),
        ('start: "(" start /[^)]/ ")"', "lark", "refers to itself, and has classes"),
        ("^a", "regex", "what begins with '^a' cannot be enforced"),
        ('start: "a\\n"i', "lark", "it ignores case, and holds what JSON escapes"),
    ],
)
def test_one_that_cannot_be_enforced_is_refused_with_the_reason(
    definition: str, syntax: str, words: str
) -> None:
    with pytest.raises(RefusedRequestError, match="tools: a grammar cannot be enforced: ") as refused:
        answers(compiler(), body(definition, syntax), "")
    assert re.search(words, str(refused.value)) or words in str(refused.value)
    assert refused.value.param == "tools"
    assert "\n" not in str(refused.value)


def test_a_grammar_is_for_a_function_with_one_argument() -> None:
    asked = body(APPLY_PATCH)
    asked[GRAMMARS_FIELD] = {"look": asked[GRAMMARS_FIELD]["patch"]}
    with pytest.raises(RefusedRequestError, match="needs a function with one argument"):
        answers(compiler(), asked, "")


ATOMS = (
    *(".", r"\n", r"\s", r"\S", r"\w", r"\W", r"\d", "a", '"', r"\\", r"\/", "é"),
    *(r"[^a]", r'[^"\n]', r"[\t-~]", r"[\n\t]", r"[^\\]"),
)
PIECES = (
    "start: start",
    "start: a.2",
    "?a: !a",
    "a: a~3",
    "%ignore X",
    '"a".."b"',
    "%import common (A, B)",
    "",
)
REPEATS = ["", "*", "+", "?", "{2}"]


@given(
    st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(REPEATS)), min_size=1, max_size=3),
    st.text(alphabet='a"\\\n\t é1/~\x01', max_size=4),
)
@example([(r"[\n\t]", "+")], "\n")
def test_what_matches_a_text_matches_it_as_json(parts: list[tuple[str, str]], text: str) -> None:
    pattern = "".join(atom + repeat for atom, repeat in parts)
    grammar = TextGrammar("regex", pattern)
    matches = re.fullmatch(pattern, text) is not None
    as_json = json.dumps(text, ensure_ascii=False)[1:-1]
    for in_json, written in ((False, text), (True, as_json)):
        terminals = grammar.terminals("G_", in_json=in_json)
        assert _is_whole(f"start: G_START\n{terminals}", written) == matches


@cache
def _tokens() -> LLTokenizer:
    return compiler()._tokens()[0]


def _is_whole(lark: str, text: str) -> bool:
    tokens = _tokens()
    matcher = LLMatcher(tokens, lark, log_level=0)
    assume(not matcher.is_error())
    ids = tokens.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@given(st.text(max_size=60) | st.sampled_from(PIECES), st.sampled_from(["lark", "regex"]), st.booleans())
def test_no_definition_does_more_than_be_refused(definition: str, syntax: str, in_json: bool) -> None:
    grammar = TextGrammar(syntax, definition)
    with suppress(GrammarError):
        assert isinstance(grammar.terminals("G_", in_json=in_json), str | None)
    with suppress(GrammarError):
        grammar.rules(in_json=in_json)
