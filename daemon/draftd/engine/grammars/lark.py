"""The grammar of a whole answer, in llguidance's dialect of Lark. Pure.

An answer is what the model thinks, if it does, and then what it says: content by a schema, calls, or (where neither
has to be) any text that calls may end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from draftd.engine.grammars.call_forms import CALL_FORMS
from draftd.engine.grammars.requested import Requested
from draftd.engine.grammars.spelling import Spelling, json_rule
from draftd.engine.refusals import RefusedRequestError


@dataclass(frozen=True, slots=True)
class Marks:
    """How a model marks what it thinks and what it calls; `special` are those that are special tokens.

    `thinking` is None for a model that does not think, `calls` the name of mlx_lm's parser, None without one.
    """

    special: Mapping[str, int]
    thinking: tuple[str, str] | None = None
    calls: str | None = None


def grammar_of(requested: Requested, marks: Marks, *, thinking: bool) -> str:
    """Return the grammar of an answer; with `thinking` it begins in the middle of what the model thinks.

    Raise RefusedRequestError if calls are asked for that this model writes in a form that cannot be enforced.
    """
    spelling = Spelling(marks.special)
    answer = _answer(requested, marks, spelling)
    if marks.thinking:
        begin, end = marks.thinking
        thoughts = f"{spelling.up_to(end)} GAP"
        answer = f"{thoughts} ({answer})" if thinking else f"({spelling(begin)} {thoughts})? ({answer})"
    rules = {"start": answer, **spelling.rules, "TEXT": r"/(.|\n)*/", "GAP": r"/\n{0,2}/"}
    return "\n".join([*(f"{name}: {rule}" for name, rule in rules.items()), *spelling.terminals])


def _answer(requested: Requested, marks: Marks, spelling: Spelling) -> str:
    content = json_rule(requested.schema) if requested.schema is not None else None
    if not requested.tools:
        return content or "TEXT"
    form = CALL_FORMS.get(marks.calls or "")
    if form is None:
        raise RefusedRequestError(
            f"this model writes tool calls in a form ({marks.calls or 'none'}) that cannot be enforced: "
            "leave tool_choice at auto and strict at false",
            param="tool_choice" if requested.must_call else "tools",
        )
    spelling.rules["call"] = " | ".join(form.rest(tool, spelling) for tool in requested.tools)
    behind = form.calls(spelling, one=requested.one_call)
    calls = f"{spelling(form.start)} {behind}"
    if requested.must_call:
        return calls
    if content:
        return f"{content} | {calls}"
    # Where a text may have calls at its end: the mark of the first one is not in the text.
    return f"TEXT | {spelling.up_to(form.start)} {behind}"
