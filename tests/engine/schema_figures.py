"""Structured output in figures: `python -m tests.engine.schema_figures [ANSWERS] [--speed]`.

The demo pair answers so many times (1,000 unless said), by the schemas of `grammars/examples` and the tools of
OpenCode in turn, at three temperatures; each answer is held against its schema by the package jsonschema. With
`--speed` it is timed instead: for each schema one answer in each way after the other, 9 times, medians. With
`--passes` passes are counted, which a busy machine does not change.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from itertools import cycle, islice, product
from statistics import median
from typing import Any

import jsonschema

from draftd.demo import DRAFT, TARGET
from draftd.protocol import AUTO_DRAFT, DRAFT_HEADER, DRAFTERS_HEADER, MODEL_DRAFTER
from tests.engine.grammars.examples import LONG_KEYS, OPENCODE_TOOLS, QUESTIONS, SCHEMAS, by_schema, tools_of
from tests.engine.served import Engine

CHAT = "/v1/chat/completions"
MAX_TOKENS = 1000
ROUNDS = 9
AUTO, ALONE = {DRAFT_HEADER: AUTO_DRAFT}, {DRAFTERS_HEADER: ""}
NO_LOOKUP = {DRAFTERS_HEADER: MODEL_DRAFTER}  # it would know the answers of earlier rounds by heart


def called(name: str) -> dict[str, Any]:
    choice = {"type": "function", "function": {"name": name}}
    return {"tools": tools_of(OPENCODE_TOOLS), "tool_choice": choice, "parallel_tool_calls": False}


def kinds() -> list[tuple[str, dict[str, Any], Any]]:
    """Return for each kind of answer its name, the fields that ask for it, and its schema."""
    content = [(name, by_schema(schema), schema) for name, schema in SCHEMAS.items()]
    calls = [(f"the tool {name}", called(name), schema) for name, schema in OPENCODE_TOOLS.items()]
    return content + calls


def ask(engine: Engine, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = engine.ask(CHAT, headers, max_tokens=MAX_TOKENS, num_draft_tokens=8, **body)
    return answer


def judge(choice: dict[str, Any], schema: Any) -> str:
    if choice["finish_reason"] == "length":
        return "cut at max_tokens"
    calls = choice["message"].get("tool_calls")
    text = calls[0]["function"]["arguments"] if calls else choice["message"]["content"]
    exact = json.loads(json.dumps(schema), parse_float=Decimal)  # by floats 5.01 is no multiple of 0.01
    try:
        jsonschema.validate(json.loads(text, parse_float=Decimal), exact)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"INVALID: {text!r}: {error}"
    return "valid"


def validity(engine: Engine, answers: int) -> None:
    tasks = islice(cycle(product((0.0, 0.7, 1.0), QUESTIONS, kinds())), answers)
    verdicts: Counter[tuple[str, str]] = Counter()
    for number, (temperature, question, (name, fields, schema)) in enumerate(tasks):
        sampled = {
            "temperature": temperature,
            "messages": [{"role": "user", "content": f"{question} {number}"}],
        }
        answer = ask(engine, AUTO, **sampled, **fields)
        choice = answer["choices"][0]
        verdicts[name, judge(choice, schema)] += 1
        print(f"\r{number + 1} of {answers}", end="", file=sys.stderr)
        if choice["finish_reason"] == "length":
            said = choice["message"]["content"]
            print(f"\n{name} at temperature {temperature}: {said[:80]!r} ... {said[-80:]!r}")
    total = Counter(verdict for (_, verdict), count in verdicts.items() for _ in range(count))
    print(f"\n{answers} answers over {len(kinds())} schemas: {dict(total)}")
    for (name, verdict), count in verdicts.items():
        if verdict != "valid":
            print(f"  {name}: {count} {verdict}")


def timed(send: Callable[[], dict[str, Any]]) -> float:
    """Return the tokens per second of an answer."""
    began = time.perf_counter()
    tokens: int = send()["usage"]["completion_tokens"]
    return tokens / (time.perf_counter() - began)


def speed(pair: Engine, target: Engine) -> None:
    question = {"messages": [{"role": "user", "content": QUESTIONS[2]}], "temperature": 0}
    for name, schema in {"long keys": LONG_KEYS, **SCHEMAS}.items():
        fields = by_schema(schema)
        ways: dict[str, Callable[[], float]] = {}
        for label, engine, headers, extra in (
            ("no schema, alone", target, ALONE, {}),
            ("schema, alone", target, ALONE, fields),
            ("schema, no draft model", target, NO_LOOKUP, fields),
            ("no schema, auto", pair, AUTO | NO_LOOKUP, {}),
            ("schema, auto", pair, AUTO | NO_LOOKUP, fields),
        ):
            limit = ask(target, ALONE, **question, **fields)["usage"]["completion_tokens"]
            body = {**question, **extra, "max_tokens": limit}
            ways[label] = partial(timed, partial(engine.ask, CHAT, headers, num_draft_tokens=8, **body))
        for way in ways.values():
            way()
        rounds = [{label: way() for label, way in ways.items()} for _ in range(ROUNDS)]
        rates = {label: median(row[label] for row in rounds) for label in ways}

        def ratio(one: str, other: str, rounds: list[dict[str, float]] = rounds) -> float:
            return median(row[one] / row[other] for row in rounds)

        print(
            f"{name:28} "
            + "  ".join(f"{label} {rate:6.0f}/s" for label, rate in rates.items())
            + f"  no draft model: {ratio('schema, no draft model', 'no schema, alone'):.2f} of no schema alone"
            + f"; with one: {ratio('schema, auto', 'no schema, auto'):.2f} of no schema auto",
            flush=True,
        )


def passes(target: Engine) -> None:
    """Print how many tokens come out of a pass without a draft model: the rest of them are forced."""
    question = {"messages": [{"role": "user", "content": QUESTIONS[2]}], "temperature": 0}
    found = {}
    for name, schema in {"long keys": LONG_KEYS, **SCHEMAS}.items():
        answer = ask(target, NO_LOOKUP, **question, **by_schema(schema))
        tokens = answer["usage"]["completion_tokens"]
        count = tokens - answer["timings"].get("draft_n_accepted", 0)
        found[name] = tokens / count
        print(f"{name:28} {tokens:3} tokens in {count:2} passes: {found[name]:.2f}", flush=True)
    print(f"median {median(found.values()):.2f}, lowest {min(found.values()):.2f}")


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    pair = Engine("--model", TARGET, "--draft-model", DRAFT)
    target = Engine("--model", TARGET)
    try:
        pair.listening()
        target.listening()
        if "--speed" in sys.argv:
            speed(pair, target)
        elif "--passes" in sys.argv:
            passes(target)
        else:
            validity(pair, *(numbers or [1000]))
    finally:
        pair.stop()
        target.stop()


if __name__ == "__main__":
    main()
