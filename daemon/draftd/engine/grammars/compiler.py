"""From a request's form to what may follow at each token, by llguidance.

Grammars are compiled once: agents send the same tools with each request. A compiled one is never used itself; every
request gets a copy that begins at the beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from draftd.engine.grammars.custom import GrammarError, TextGrammar
from draftd.engine.grammars.lark import Marks, grammar_of
from draftd.engine.grammars.numbers import Numbers
from draftd.engine.grammars.requested import ANY_OBJECT, Requested, Tool
from draftd.engine.grammars.schemas import MAX_DEPTH, MAX_LEAST_ITEMS, has_no_end, is_too_deep, wants_too_many
from draftd.engine.grammars.spelling import json_rule
from draftd.engine.refusals import RefusedRequestError

MAX_KNOWN = 64  # compiled grammars
SILENT = 0


class Compiler:
    """Compiles for one model. `tokenizer` is mlx_lm's TokenizerWrapper, `vocabulary` how many tokens the model has.

    Any thread may use it.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self.tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = Lock()
        self._made: tuple[LLTokenizer, Marks, Numbers] | None = None
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, requested: Requested, *, thinking: bool = False) -> LLMatcher:
        """Return a matcher for one answer; `thinking` as in `grammar_of`.

        Raise RefusedRequestError for what cannot be compiled, with the reason.
        """
        with self._lock:
            tokens, marks, _ = self._tokens()
        checked = _checked(requested)
        try:
            grammar = grammar_of(checked, marks, thinking=thinking)
        except GrammarError as error:
            raise _grammar_refused(str(error)) from error
        with self._lock:
            matcher = self._known.get(grammar)
        # That takes seconds for a schema of thousands of properties, and another thread may want what is known.
        return self._kept(grammar, matcher or _compiled(tokens, grammar))

    def _kept(self, grammar: str, matcher: LLMatcher) -> LLMatcher:
        """Return a copy of what was compiled, which is kept as the newest."""
        with self._lock:
            self._known[grammar] = matcher
            self._known.move_to_end(grammar)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            return matcher.deep_copy()

    @property
    def numbers(self) -> Numbers:
        """What bounds the numbers of answers."""
        with self._lock:
            return self._tokens()[2]

    def _tokens(self) -> tuple[LLTokenizer, Marks, Numbers]:
        if self._made is None:
            wrapped = self.tokenizer._tokenizer
            try:
                tokens = from_tokenizer(
                    wrapped, n_vocab=self._vocabulary, eos_token=sorted(self.tokenizer.eos_token_ids)
                )
            except ValueError as error:
                raise RefusedRequestError(
                    f"no form can be enforced with this model's tokenizer: {error}"
                ) from error
            numbers = Numbers(lambda token: tokens.decode_bytes([token]), self._vocabulary)
            self._made = tokens, _marks(self.tokenizer, tokens), numbers
        return self._made


def _compiled(tokens: LLTokenizer, grammar: str) -> LLMatcher:
    matcher = LLMatcher(tokens, grammar, log_level=SILENT)
    if matcher.is_error():
        raise RefusedRequestError(
            f"the form of the answer cannot be enforced: {_reason(matcher.get_error())}"
        )
    return matcher


def _marks(tokenizer: Any, tokens: LLTokenizer) -> Marks:
    added = tokenizer._tokenizer.get_added_vocab()
    parser = tokenizer.tool_parser
    return Marks(
        {text: token for text, token in added.items() if tokens.is_special_token(token)},
        (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None,
        parser.__module__.rpartition(".")[2] if parser is not None else None,
    )


def _checked(requested: Requested) -> Requested:
    """Refuse schemas that cannot be enforced; where a tool does not insist on its own, any object will do."""
    if requested.schema is not None and (reason := _fault(requested.schema)):
        raise RefusedRequestError(
            f"response_format: its schema cannot be enforced: {reason}", param="response_format"
        )
    tools = tuple(_checked_tools(requested.tools))
    return Requested(requested.schema, tools, requested.must_call, requested.one_call)


def _checked_tools(tools: Iterable[Tool]) -> Iterable[Tool]:
    for tool in tools:
        if tool.grammar:
            if reason := _fault_of_grammar(tool.grammar):
                raise _grammar_refused(f"{tool.name}: {reason}")
            yield tool
        elif not (reason := _fault(tool.parameters)):
            yield tool
        elif tool.strict:
            raise RefusedRequestError(
                f"tools: the parameters of {tool.name!r} cannot be enforced: {reason}", param="tools"
            )
        else:
            yield Tool(tool.name, ANY_OBJECT)


def _fault(schema: dict[str, Any]) -> str:
    """Return why a schema cannot be compiled; an empty text if it can."""
    if is_too_deep(schema):
        return f"it has more than {MAX_DEPTH} objects and lists within each other"
    if has_no_end(schema):
        return "what fits it, or a part of it, must hold such a value again, and that one too, without an end"
    if wants_too_many(schema):
        return f"a list of more than {MAX_LEAST_ITEMS:,} items is wanted"
    return _reason(LLMatcher.validate_grammar(f"start: {json_rule(schema)}"))


def _fault_of_grammar(grammar: TextGrammar) -> str:
    """Return why a grammar cannot be compiled; an empty text if it can."""
    try:
        error = LLMatcher.validate_grammar(grammar.rules(in_json=False))
    except GrammarError as fault:
        return str(fault)
    first, *others = error.split("\n")
    more = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]
    return " ".join([first, *more])


def _grammar_refused(reason: str) -> RefusedRequestError:
    return RefusedRequestError(f"tools: a grammar cannot be enforced: {reason}", param="tools")


def _reason(error: str) -> str:
    """Return the heart of llguidance's message, which also says where in the whole grammar it stands."""
    first, *others = error.split("\n")
    more = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]
    return " ".join([first.rpartition("JSON schema: ")[2], *more])
