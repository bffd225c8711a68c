"""What each way of drafting gives: `python -m tests.engine.figures [TARGET DRAFT]`. Takes minutes, and quiet.

Tokens per pass of the target model, and the speed against no drafting, for some tasks at temperature 0, in one
process: the ways take turns on each task, and medians of the ratios are shown. The text is compared as well: it
must be that of no drafting. Without folders of models, the demo pair is measured.

Each way has one policy for all tasks, as a worker has. The demo pair can write nothing again but what it knows by
heart: so "again" asks a question whose answer stands in the chat already, with one word of it changed.
"""

from __future__ import annotations

import inspect
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import mlx_lm

from draftd.demo import DRAFT, TARGET
from draftd.engine.generation.choices import ALONE
from draftd.engine.generation.drafters.lookup import AnswerStore, LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.sampling import Greedy, Logits
from draftd.engine.model_facts import vocabulary_size
from tests.engine import chance
from tests.engine.texts import FILE

ROUNDS = 7  # after a first one, which is for learning
TOKENS = 250  # of an answer at most
QUESTION = "Write Python code for speculative decoding."
SOURCE = "\n".join(
    inspect.getsource(chance).splitlines()[:24]
)  # small models copy what does not repeat itself
RECORDS = ", ".join(f'{{"id": {n}, "name": "user{n}", "active": true}}' for n in range(12))
TASKS = {
    "rewrite": f"Write this file again with step_7 renamed to first_step, and nothing else changed:\n\n{FILE}\n",
    "copy": f"Repeat this file exactly, word by word:\n\n```python\n{SOURCE}\n```",
    "quote": f"The tool said: {FILE[:600]}\nQuote what the tool said, word by word.",
    "json": f"Continue this JSON list with 12 more records of the same kind: [{RECORDS}",
    "prose": "Tell me a long story about a fox and a harbour.",
    "chat": "What is speculative decoding, and when does it pay?",
}


@dataclass
class Way:
    """One way of drafting, with what it has learnt so far."""

    name: str
    model: bool
    lookup: bool
    policy: DraftPolicy = field(default_factory=DraftPolicy)


def ways() -> list[Way]:
    """No drafting first: the others are compared with it."""
    return [
        Way("none", model=False, lookup=False),
        Way("model 5", model=True, lookup=False, policy=DraftPolicy(fixed=5)),
        Way("lookup", model=False, lookup=True),
        Way("lookup, model 5", model=True, lookup=True, policy=DraftPolicy(fixed=5)),
        Way("auto", model=True, lookup=True),
    ]


def run(models: LoadedModels, prompt: list[int], way: Way, ends: set[int]) -> tuple[list[int], float, float]:
    """Return the answer, the tokens per pass, and the tokens per second after the target model read the prompt."""
    target, draft = models.adopt([], 0)
    logits, rule = Logits(vocabulary_size(models.target.args) or 0), Greedy()
    drafter = ModelDrafter(Reader(models.draft, draft, 512), logits, rule) if way.model and draft else None
    generation = Generation(
        text=list(prompt),
        max_tokens=TOKENS,
        target=Reader(models.target, target, 512),
        rule=rule,
        logits=logits,
        policy=way.policy,
        draft=drafter,
        max_draft=8 if drafter else 0,
        lookup=LookupDrafter(prompt, AnswerStore()) if way.lookup else None,
    )
    generation.target.catch_up(generation.text)
    started = time.perf_counter()
    made = []
    with closing(generation.generate()) as tokens:
        for token in tokens:
            made.append(token)
            if token.token in ends:
                break
    seconds = time.perf_counter() - started
    passes = sum(token.source == ALONE for token in made)
    return [token.token for token in made], len(made) / max(1, passes), len(made) / seconds


def compare(models: LoadedModels, prompt: list[int], task: str, all_ways: list[Way], ends: set[int]) -> None:
    """Print a line for each way."""
    passes: dict[str, float] = {}
    ratios: dict[str, list[float]] = {way.name: [] for way in all_ways}
    for number in range(ROUNDS + 1):
        base: tuple[list[int], float] | None = None
        for way in all_ways:
            text, passes[way.name], speed = run(models, prompt, way, ends)
            base = base or (text, speed)
            if text != base[0]:
                place = next(n for n, (a, b) in enumerate(zip(text, base[0], strict=False)) if a != b)
                print(f"{task}: {way.name}: another text from token {place} on")
            if number:
                ratios[way.name].append(speed / base[1])
    for way in all_ways:
        low, middle, high = statistics.quantiles(ratios[way.name], n=4)
        speeds = f"{middle:5.2f} x ({low:.2f} to {high:.2f})"
        print(f"{task:8} {way.name:16} {passes[way.name]:5.2f} tokens per pass, {speeds}")


def main(folders: list[str]) -> None:
    """Load the pair, and compare the ways on each task."""
    names = folders or [str(TARGET), str(DRAFT)]
    loaded: list[Any] = [mlx_lm.load(name) for name in names]
    (target, tokenizer), (draft, _) = loaded
    models = LoadedModels(target, draft, print)
    all_ways, ends = ways(), set(tokenizer.eos_token_ids)

    def prompt(*turns: str) -> list[int]:
        roles = ("user", "assistant")
        chat = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
        tokens: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
        return tokens

    answer = tokenizer.decode(run(models, prompt(QUESTION), all_ways[0], ends)[0][:-1])
    changed = answer.replace("guess", "token", 1)
    compare(models, prompt(QUESTION, changed, QUESTION), "again", all_ways, ends)
    for task, text in TASKS.items():
        compare(models, prompt(text), task, all_ways, ends)


if __name__ == "__main__":
    main(sys.argv[1:])
