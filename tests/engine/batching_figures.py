"""What several requests at once give: `python -m tests.engine.batching_figures [TARGET DRAFT]`. Takes minutes.

With `random LAYERS WIDTH` instead of two folders the target model is one of random weights, in bfloat16, and there
is no draft model: so it can be seen on any machine what passes cost there, without a download.

First: milliseconds of a pass of the target model, by sequences and tokens of each (and in passes of one token).

For 1, 2, 4 and 8 clients, each of which sends one request after the other: tokens per second in all and for each
client, and the time to the first token, at temperature 0 with mixed prompts, for (a) one request after the other,
(b) mlx_lm's batching without drafts, and (c) our loop. The answers of (b) and (c) are compared with those of (a).
The ways take turns, and medians are shown. Each run begins with empty prompt caches and without past answers, which
lookups would know by heart. Without folders of models, the demo pair is measured. The machine has to be quiet.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx_lm import server

from draftd.demo import DRAFT, TARGET
from draftd.engine import records
from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow
from draftd.engine.generation.caches.sequence import ModelCaches
from tests.engine.architectures.models import make
from tests.engine.stand_in import Asked, Generator

CLIENTS = (1, 2, 4, 8)
REQUESTS = 2  # of each client, one after the other
TOKENS = 120
REPEATS = 5  # after a first one, which is for learning
SEQUENCES, WIDTHS = (1, 2, 4, 8), (1, 2, 3, 4, 6, 9, 17, 33)
CONTEXT = 200  # tokens that each sequence has read before
PASSES = 24
QUESTIONS = (
    "Tell me a long story.",
    "What is draftd?",
    "Explain speculative decoding.",
    "Write a Python function that adds two numbers.",
    "What is a draft model?",
    "What are the presets? " * 12,
    "Who are you?",
    "Explain the metrics, and say which of them tells how well drafting works. " * 6,
    "Write a haiku about a harbour.",
    "Write a bash script that counts the lines of all files in a folder.",
    "Explain what a worker is. " * 9,
    "Tell me about the fox and the crow.",
    "How do I install it on a Mac?",
    "Write Python code for speculative decoding.",
    "What does the queue do when two clients ask at once? " * 4,
    "Give me a list of ten fruits.",
)


@dataclass
class Answer:
    """When a request was sent, and its tokens came."""

    sent: float
    came: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, token: int) -> None:
        self.came.append(time.perf_counter())
        self.tokens.append(token)


@dataclass
class Run:
    """What one way gave for some clients: their answers, and the seconds in all."""

    answers: list[list[Answer]]
    seconds: float

    @property
    def total(self) -> float:
        return sum(len(one.tokens) for client in self.answers for one in client) / self.seconds

    @property
    def each(self) -> float:
        """Tokens per second of a client, from when it sent a request to its end."""
        rates = [len(one.tokens) / (one.came[-1] - one.sent) for client in self.answers for one in client]
        return statistics.median(rates)

    @property
    def first(self) -> float:
        return statistics.median(one.came[0] - one.sent for client in self.answers for one in client)


class Waiting:
    """The requests of some clients: the next one of each comes when the one before has ended."""

    def __init__(self, prompts: list[list[int]], clients: int) -> None:
        turns = range(REQUESTS)
        self._left = [
            [prompts[(n + clients * turn) % len(prompts)] for turn in turns] for n in range(clients)
        ]
        self._busy = [False] * clients
        self.sent = [0.0] * clients
        self.answers: list[list[Answer]] = [[] for _ in range(clients)]
        self.began = time.perf_counter()
        self.sent = [self.began] * clients

    def take(self) -> tuple[int, list[int], Answer] | None:
        """Return the client, the prompt and the answer of the next request, if one waits."""
        for client, left in enumerate(self._left):
            if left and not self._busy[client]:
                self._busy[client] = True
                self.answers[client].append(Answer(self.sent[client]))
                return client, left.pop(0), self.answers[client][-1]
        return None

    def ended(self, client: int) -> None:
        self._busy[client] = False
        self.sent[client] = time.perf_counter()

    def run(self) -> Run:
        return Run(self.answers, time.perf_counter() - self.began)


class Timed(Asked):
    """A request whose tokens are timed."""

    answer: Answer
    ended: Callable[[], None]

    def put(self, what: Any) -> None:
        if isinstance(what, server.Response):
            self.answer.add(what.token)
        elif isinstance(what, server.GenerationContext):
            self.context = what
        elif what is None:
            self.ended()
        elif isinstance(what, Exception):
            raise what


class Ours(Generator):
    """Our loop. `at_once` requests are at work at a time."""

    def __init__(self, target: Any, draft: Any, ends: frozenset[int], at_once: int) -> None:
        super().__init__(target, draft)
        self.model_provider.tokenizer.eos_token_ids = ends
        self.cli_args.decode_concurrency = at_once
        self._waiting = Waiting([], 0)

    def _next_request(self, timeout: float | None = None) -> Any:
        taken = self._waiting.take()
        if taken is None:
            return None
        client, prompt, answer = taken
        asked = Timed(prompt, TOKENS, 8, auto=True)
        asked.answer, asked.ended = answer, lambda: self._waiting.ended(client)
        return self._queued(asked)

    def run(self, prompts: list[list[int]], clients: int) -> Run:
        self.prompt_cache.trim_to(n_sequences=0)
        if self.serving._models:
            self.serving._models._answers.clear()
        self._waiting = Waiting(prompts, clients)
        while request := self._next_request():
            self.serving.serve(self, request, mx.default_stream(mx.default_device()))
        return self._waiting.run()


def batched(target: Any, ends: frozenset[int], prompts: list[list[int]], clients: int) -> Run:
    """mlx_lm's batching, without drafts."""
    generate: Any = importlib.import_module("mlx_lm.generate")
    generator = generate.BatchGenerator(target, max_tokens=TOKENS, stop_tokens=[[end] for end in ends])
    waiting, open_requests = Waiting(prompts, clients), {}
    while True:
        while taken := waiting.take():
            client, prompt, answer = taken
            (uid,) = generator.insert([prompt])
            open_requests[uid] = client, answer
        if not open_requests:
            return waiting.run()
        for response in generator.next()[1]:
            client, answer = open_requests[response.uid]
            answer.add(int(response.token))
            if response.finish_reason:
                del open_requests[response.uid]
                waiting.ended(client)


def ways(target: Any, draft: Any, ends: frozenset[int]) -> dict[str, Callable[[list[list[int]], int], Run]]:
    return {
        "one by one": Ours(target, draft, ends, 1).run,
        "batched, no drafts": lambda prompts, clients: batched(target, ends, prompts, clients),
        "draftd": Ours(target, draft, ends, max(CLIENTS)).run,
    }


def differing(ours: Run, reference: Run) -> int:
    """Return how many answers differ."""
    pairs = zip(ours.answers, reference.answers, strict=True)
    return sum(a.tokens != b.tokens for mine, others in pairs for a, b in zip(mine, others, strict=True))


def figures(target: Any, draft: Any, ends: frozenset[int], prompts: list[list[int]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| clients | way | tokens/s in all | for each client | first token, s | answers that differ |"
    yield "|---|---|---|---|---|---|"
    measured = ways(target, draft, ends)
    for clients in CLIENTS:
        runs: dict[str, list[Run]] = {name: [] for name in measured}
        for _ in range(REPEATS + 1):
            for name, run in measured.items():
                runs[name].append(run(prompts, clients))
        for name, made in runs.items():
            total, each, first = (
                statistics.median(getattr(one, what) for one in made[1:])
                for what in ("total", "each", "first")
            )
            differ = differing(made[-1], runs["one by one"][-1])
            yield f"| {clients} | {name} | {total:.1f} | {each:.1f} | {first:.2f} | {differ} |"


def costs(target: Any) -> Iterator[str]:
    """Yield the lines of the table of passes."""
    caches = ModelCaches(target)
    seconds: dict[tuple[int, int], float] = {}
    for count in SEQUENCES:
        batch = RaggedBatch(target, caches.make().layers)
        rows = []
        for number in range(count):
            cache = caches.make()
            text = mx.array([[5 + (n * 7 + number) % 90 for n in range(CONTEXT - number)]])
            mx.eval(target(text, cache=cache.layers))
            cache.advance(text.size)
            rows.append(batch.join(cache.layers, cache.position))
        for width in WIDTHS:
            seconds[count, width] = _seconds(batch, rows, width)
    yield f"| sequences | {' | '.join(f'{width} tokens' for width in WIDTHS)} |"
    yield "|---" * (len(WIDTHS) + 1) + "|"
    for count in SEQUENCES:
        cells = (
            f"{1000 * seconds[count, width]:.2f} ({seconds[count, width] / seconds[1, 1]:.2f})"
            for width in WIDTHS
        )
        yield f"| {count} | {' | '.join(cells)} |"


def _seconds(batch: RaggedBatch, rows: list[RaggedRow], width: int) -> float:
    tokens = [7] * width
    taken = []
    for _ in range(PASSES):
        for row in rows:
            row.mark()
        began = time.perf_counter()
        mx.eval([read.logits for read in batch.read(dict.fromkeys(rows, tokens)).values()])
        taken.append(time.perf_counter() - began)
        for row in rows:
            row.advance(width)
            row.rollback(0)
    return statistics.median(taken[len(taken) // 3 :])


def random_model(layers: int, width: int) -> Any:
    """Return a model with the proportions of Qwen2.5."""
    model = make(
        "qwen2",
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=5 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=max(1, width // 1024),
        tie_word_embeddings=True,
    )
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    return model


def main(arguments: list[str]) -> None:
    vars(records)["report_generation"] = lambda *_: None
    if arguments[:1] == ["random"]:
        target, draft, ends = random_model(*map(int, arguments[1:3])), None, frozenset[int]()
        prompts = [[5 + (n * 7 + number) % 900 for n in range(100)] for number in range(len(QUESTIONS))]
    else:
        target, tokenizer = mlx_lm.load(arguments[0])[:2]
        draft = mlx_lm.load(arguments[1])[0]
        ends = frozenset(tokenizer.eos_token_ids)
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
            for question in QUESTIONS
        ]
    print(mx.default_device())
    for line in itertools.chain(costs(target), [""], figures(target, draft, ends, prompts)):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [str(TARGET), str(DRAFT)])
