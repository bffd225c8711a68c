"""A small grammar of paraphrases: `{a|b|c}` is a choice, choices nest, the first one is the likeliest."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

FIRST = 0.7
"""Chance of the first choice. Well above one half, so that greedy decoding has no near ties."""
FREE, FIRST_OF_FREE = 5, 0.35
"""With this many choices or more they are free, and the first has this chance: several times that of any other."""


@dataclass(frozen=True)
class Topic:
    """A subject with the ways to ask for it and one answer, both with choices in them."""

    name: str
    questions: tuple[str, ...]
    answer: str


def split_choices(body: str) -> list[str]:
    """Split the inside of a `{...}` at the bars that belong to it."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(body):
        depth += (char == "{") - (char == "}")
        if char == "|" and depth == 0:
            parts.append(body[start:index])
            start = index + 1
    return [*parts, body[start:]]


def chance_of_first(choices: list[str]) -> float:
    """How likely the first of some choices is, unless the caller says otherwise."""
    return FIRST if len(choices) < FREE else FIRST_OF_FREE


def spin(text: str, rng: random.Random, first: float | None = None) -> str:
    """Resolve every choice in `text`; `first` is the chance of each first one, 1 takes the first of each."""
    match = re.search(r"\{", text)
    if match is None:
        return text
    depth, end = 0, match.start()
    for end in range(match.start(), len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            break
    choices = split_choices(text[match.start() + 1 : end])
    lead = chance_of_first(choices) if first is None else first
    chosen = choices[0] if len(choices) == 1 or rng.random() < lead else rng.choice(choices[1:])
    return text[: match.start()] + spin(chosen, rng, first) + spin(text[end + 1 :], rng, first)


def load_topics(path: Path | None = None) -> dict[str, Topic]:
    """Read `topics.md`; the text before the first heading is a note to the reader."""
    text = (path or Path(__file__).with_name("topics.md")).read_text()
    blocks = [block.strip().split("\n") for block in re.split(r"^# ", text, flags=re.MULTILINE)[1:]]
    answers = {
        lines[0]: "\n".join(x for x in lines[1:] if x[:2] not in ("? ", "+ ")).strip() for lines in blocks
    }
    topics = {}
    for name, *lines in blocks:
        questions = tuple(line[2:] for line in lines if line.startswith("? "))
        parts = [answers[name], *(answers[line[2:]] for line in lines if line.startswith("+ "))]
        topics[name] = Topic(name, questions, "\n\n".join(parts))
    return topics
