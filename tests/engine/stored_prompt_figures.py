"""What stored prompts give: `python -m tests.engine.stored_prompt_figures [TARGET DRAFT]`, and be quiet.

Each round starts an engine that has nothing stored and asks a prompt of TOKENS tokens (cold), then ends it and
starts another, which takes the prompt up (restored). Shown are medians: the seconds to the first token of both and
their ratio, the seconds that the start and the end of an engine take with and without the store, and the bytes of a
file for 1,000 tokens. Last, what saving costs a request that comes while it goes on: the longest gap between its
tokens, beside that of the same request when nothing is saved. Without folders of models, the demo pair is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from draftd.demo import DRAFT, TARGET
from draftd.engine.stored_prompts.store import QUIET_S
from draftd.protocol import PROMPT_CACHE_SUFFIX, PROMPT_STORE_VARIABLE, PromptStore, read_prompt_cache_header
from tests.engine.served import Engine, turn

ROUNDS = 5
TOKENS = 3000
LINE = "def step(state, value): return state + value  # keep what was accepted\n"
NEW_CONVERSATION = "Write a list of reasons."
GAP_TOKENS = 100


def main(models: list[str]) -> None:
    """Measure, and print."""
    target, draft = map(Path, models) if models else (TARGET, DRAFT)
    flags = ("--model", target, "--draft-model", draft)
    rounds = [_round(flags) for _ in range(ROUNDS)]
    middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    for key, value in middle.items():
        print(f"{key:48} {value:12.4g}")
    print(f"{'restored / cold, to the first token':48} {_ratio(rounds, 'restored', 'cold'):12.4g}")
    print(f"{'longest gap while saving / without':48} {_ratio(rounds, 'gap while saving', 'gap'):12.4g}")


def _ratio(rounds: list[dict[str, float]], one: str, other: str) -> float:
    return statistics.median(figures[one] / figures[other] for figures in rounds)


def _round(flags: tuple[str | Path, ...]) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = PromptStore(folder, 10**10, 20.0).text()
        figures["start without a store"], plain = _start(flags, "")
        prompt = turn(_prompt(plain))
        figures["cold"] = _first_token(plain, prompt)
        figures["end without a store"] = _end(plain)
        figures["start, nothing stored"], first = _start(flags, place)
        _first_token(first, prompt)
        figures["end, all to be saved"] = _end(first)
        (file,) = Path(folder).glob(f"*{PROMPT_CACHE_SUFFIX}")
        with file.open("rb") as opened:
            tokens = read_prompt_cache_header(opened)["tokens"]
        figures["bytes for 1,000 tokens"] = file.stat().st_size / tokens * 1000
        figures["start, a prompt stored"], second = _start(flags, place)
        figures["restored"] = _first_token(second, prompt)
        figures["gap"] = _longest_gap(second)
        _first_token(second, turn("x " + _prompt(second)))  # which is not stored yet
        time.sleep(QUIET_S)
        figures["gap while saving"] = _longest_gap(second)
        _end(second)
    return figures


def _prompt(engine: Engine) -> str:
    """A text of about TOKENS tokens."""
    few: int = engine.ask("/v1/completions", prompt=LINE * 10, max_tokens=1)["usage"]["prompt_tokens"]
    return LINE * round(TOKENS * 10 / few)


def _start(flags: tuple[str | Path, ...], place: str) -> tuple[float, Engine]:
    began = time.monotonic()
    engine = Engine(*flags, env={PROMPT_STORE_VARIABLE: place}).listening()
    engine.wait_for_line('"event": "loaded"')
    took = time.monotonic() - began
    engine.complete(turn("Hello!"), max_tokens=8)  # the first request of all is slower than others
    return took, engine


def _end(engine: Engine) -> float:
    began = time.monotonic()
    engine.process.terminate()
    engine.wait_for_exit()
    took = time.monotonic() - began
    engine.stop()
    return took


def _times(engine: Engine, prompt: str, tokens: int) -> list[float]:
    """When each piece of the answer came, after the request."""
    began = time.monotonic()
    with closing(engine.open("/v1/completions", prompt=prompt, max_tokens=tokens, stream=True)) as answer:
        lines = (line for line in answer if line.startswith(b"data: {"))
        return [time.monotonic() - began for line in lines if json.loads(line[6:])["choices"]]


def _first_token(engine: Engine, prompt: str) -> float:
    return _times(engine, prompt, 1)[0]


def _longest_gap(engine: Engine) -> float:
    times = _times(engine, turn(NEW_CONVERSATION), GAP_TOKENS)
    return max(after - before for before, after in pairwise(times))


if __name__ == "__main__":
    main(sys.argv[1:])
