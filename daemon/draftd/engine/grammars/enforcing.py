"""The form that a request asks for, carried from the thread that reads it to the one that generates.

What cannot be enforced is refused while the request is read. What can be is compiled there, too, for both ways in
which its answer may begin: the generating thread, for which all that are at work wait, compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llguidance import LLMatcher

from draftd.engine import request_context
from draftd.engine.answers.channels import REASONING
from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.grammars.compiler import Compiler
from draftd.engine.grammars.requested import Requested, requested
from draftd.engine.model_facts import vocabulary_size

FORM_ATTRIBUTE = "draftd_form"  # of mlx_lm's GenerationArguments
_COMPILER = "draftd_compiler"  # of mlx_lm's ModelProvider


@dataclass(slots=True)
class Form:
    """What a request asks for, and its matchers by whether the answer begins in the middle of a thought."""

    requested: Requested
    matchers: dict[bool, LLMatcher] = field(default_factory=dict)


def take_form(arguments: Any, body: Mapping[str, Any], provider: Any) -> None:
    """Take note of the form that a request for a chat asks for. Raise RefusedRequestError if it cannot be had."""
    wanted = requested(body)
    if wanted is None:
        return
    form = Form(wanted)
    setattr(arguments, FORM_ATTRIBUTE, form)
    if provider.model is not None:
        compiler = _compiler(provider)
        for thinking in (False, True) if provider.tokenizer.has_thinking else (False,):
            form.matchers[thinking] = compiler.compile(wanted, thinking=thinking)


def form_of(arguments: Any) -> Form | None:
    """Return the form that a request asks for, None if any will do."""
    form: Form | None = getattr(arguments, FORM_ATTRIBUTE, None)
    return form


def grammar_for(arguments: Any, provider: Any, context: Any) -> Grammar | None:
    """Return the grammar of a request's answer, if it has one; `context` is mlx_lm's GenerationContext.

    It drafts what it forces, unless the request is to have no drafts at all.
    """
    form = form_of(arguments)
    if form is None:
        return None
    compiler, thinking = _compiler(provider), context.initial_state == REASONING
    # There is none where the request was read before the model was there.
    matcher = form.matchers.get(thinking) or compiler.compile(form.requested, thinking=thinking)
    drafts = request_context.of(arguments).drafters != frozenset()
    ends = sorted(provider.tokenizer.eos_token_ids)
    return Grammar(matcher, _vocabulary(provider), ends, drafts=drafts, numbers=compiler.numbers)


def _compiler(provider: Any) -> Compiler:
    known: Compiler | None = getattr(provider, _COMPILER, None)
    if known is None or known.tokenizer is not provider.tokenizer:
        known = Compiler(provider.tokenizer, _vocabulary(provider))
        setattr(provider, _COMPILER, known)
    return known


def _vocabulary(provider: Any) -> int:
    size = vocabulary_size(provider.model.args)
    if size is None:
        raise ValueError("the model does not say how many tokens it has")
    return size
