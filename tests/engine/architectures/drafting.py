"""A text token by token with mlx_lm's own caches, and the same by drafts that are verified and taken back."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache

PREFILL = 24  # tokens of a prompt that are read in one pass: more than a window
MAX_DRAFT = 8

Proposer = Callable[[list[int], int], list[int]]


def prompt_of(length: int, seed: int, vocabulary: int = 256) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(4, vocabulary) for _ in range(length)]


def prefill(model: Any, layers: Any, tokens: list[int]) -> None:
    """Read all of a prompt but its last token, in passes as mlx_lm makes them."""
    for start in range(0, len(tokens), PREFILL):
        model(mx.array([tokens[start : start + PREFILL]]), cache=layers)
        mx.eval([layer.state for layer in layers])


def plain_text(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """Return what mlx_lm generates without a draft."""
    layers = make_prompt_cache(model)
    prefill(model, layers, prompt[:-1])
    text: list[int] = []
    last = prompt[-1]
    for _ in range(tokens):
        last = _tokens(model(mx.array([[last]]), cache=layers)[0])[0]
        text.append(last)
    return text


def scripted(truth: list[int], right: Callable[[int], float], seed: int) -> Proposer:
    """Propose the text itself, each token of it with the chance `right(position)`, else another token."""
    rng = random.Random(seed)

    def propose(text: list[int], length: int) -> list[int]:
        at = range(len(text), min(len(text) + length, len(truth)))
        return [truth[i] if rng.random() < right(i) else (truth[i] + 1) % 256 for i in at]

    return propose


class DraftModel:
    """Proposes what a draft model would generate; takes back what it has read beyond the text."""

    def __init__(self, model: Any, prompt: list[int]) -> None:
        self._model = model
        self._prompt = prompt
        self._cache = ModelCaches(model).make()
        _read(model, self._cache, prompt[:-1])
        self._cache.mark()
        self._seen: list[int] = []  # what was read since the mark

    def __call__(self, text: list[int], length: int) -> list[int]:
        everything = self._prompt + text
        start = self._cache.position - len(self._seen)
        same = [a == b for a, b in zip(self._seen, everything[start:], strict=False)]
        self._cache.rollback(min([i for i, agree in enumerate(same) if not agree], default=len(same)))
        unread = everything[self._cache.position :]
        self._cache.mark()
        self._seen = list(unread)
        draft = _tokens(_read(self._model, self._cache, unread))[-1:]
        while len(draft) < length:
            self._seen.append(draft[-1])
            draft += _tokens(_read(self._model, self._cache, draft[-1:]))
        return list(draft)


@dataclass
class Drafted:
    """A text, and what it took."""

    text: list[int] = field(default_factory=list)
    rounds: int = 0
    passes: int = 0
    rows: int = 0
    refused: int = 0


def drafted_text(
    model: Any, cache: SequenceCache, prompt: list[int], tokens: int, propose: Proposer, seed: int = 0
) -> Drafted:
    """Generate by rounds: the last token and a draft are read in one pass, and what was refused is taken back.

    `cache` has read a beginning of the prompt, and in the end all of prompt and text but the last token.
    """
    rng = random.Random(seed)
    done = Drafted()
    unread = prompt[cache.position : -1]
    for start in range(0, len(unread), PREFILL):
        part = unread[start : start + PREFILL]
        _read(model, cache, part)
        mx.eval([layer.state for layer in cache.layers])
    everything = list(prompt)
    while len(done.text) < tokens:
        missing = everything[cache.position : -1]  # where a rollback takes back whole passes
        if missing:
            _read(model, cache, missing)
            done.passes += 1
            done.rows += len(missing)
        length = rng.randint(1, MAX_DRAFT)
        draft = propose(done.text, length)[: tokens - len(done.text)]
        cache.mark()
        rows = _read(model, cache, [everything[-1], *draft])
        chosen = _tokens(rows)
        done.rounds += 1
        done.passes += 1
        done.rows += len(draft) + 1
        kept = next((i for i, token in enumerate(draft) if token != chosen[i]), len(draft))
        done.refused += kept < len(draft)
        cache.rollback(kept + 1)
        new = [*draft[:kept], chosen[kept]][: tokens - len(done.text)]
        done.text += new
        everything += new
    return done


def _read(model: Any, cache: SequenceCache, tokens: list[int]) -> mx.array:
    logits: mx.array = model(mx.array([tokens]), cache=cache.layers)[0]
    cache.advance(len(tokens))
    return logits


def _tokens(rows: mx.array) -> Any:
    return mx.argmax(rows, axis=-1).tolist()
