"""The form of a request on its way to the generating thread, which others wait for."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from llguidance import LLMatcher

from draftd.engine.grammars import compiler as compiling
from draftd.engine.grammars.enforcing import grammar_for, take_form
from tests.engine.grammars.test_compiler import JSON, MUST, PLAIN_MARKS, VOCABULARY, answers, compiler


@pytest.mark.fault(214)
@pytest.mark.parametrize("thinks", [False, True])
def test_the_generating_thread_compiles_nothing(monkeypatch: pytest.MonkeyPatch, thinks: bool) -> None:
    made = compiler(thinking=PLAIN_MARKS if thinks else None)
    arguments, model = SimpleNamespace(), SimpleNamespace(args=SimpleNamespace(vocab_size=VOCABULARY))
    provider: Any = SimpleNamespace(model=model, tokenizer=made.tokenizer)
    take_form(arguments, JSON, provider)
    monkeypatch.setattr(compiling, "LLMatcher", None)  # neither to compile nor to validate
    for state in ("normal", *(["reasoning"] if thinks else [])):
        grammar = grammar_for(arguments, provider, SimpleNamespace(initial_state=state))
        assert grammar is not None
        text = ("x[/think]" if state == "reasoning" else "") + '{"path": "a.py"}'
        tokens = made.tokenizer.encode(text, add_special_tokens=False)
        assert grammar.allowed(tokens) == tokens


@pytest.mark.fault(214)
def test_what_is_known_is_had_while_another_thread_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    known, begun, goes_on = compiler(), Event(), Event()
    answers(known, JSON, "I")

    class Slow:
        validate_grammar = staticmethod(LLMatcher.validate_grammar)

        def __new__(cls, *args: Any, **how: Any) -> Any:
            begun.set()
            assert goes_on.wait(10)
            return LLMatcher(*args, **how)

    monkeypatch.setattr(compiling, "LLMatcher", Slow)
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(answers, known, MUST, "I")
        assert begun.wait(10)
        quick = threads.submit(lambda: (answers(known, JSON, "I"), known.numbers))
        assert quick.result(10)[0] == "wrong"
        assert not slow.done()
        goes_on.set()
        assert slow.result(10) == "wrong"
