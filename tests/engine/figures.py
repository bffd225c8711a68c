"""The figures of docs/measurements.md, "The two rules": `python -m tests.engine.figures`. Takes minutes, and quiet.

Everything is measured through running engines on the demo pair, side by side: each prompt goes to both in turn,
and a run is one pass over all prompts.
"""

import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx_lm.sample_utils import make_sampler

from draftd.demo import DRAFT, TARGET
from draftd.ops.bench.plan import PROMPTS
from tests.engine.served import ENGINE, Engine, turn

TEMPERATURES = (0.3, 0.55, 0.7, 1.0)
RUNS = 3
# What the demo pair knows by heart, and what it makes up anew each time.
WORKLOADS = {
    "recited": tuple(prompt for kind in PROMPTS.values() for prompt in kind),
    "free": (
        "Tell me a long story.",
        "tell me a fairy tale",
        "invent a tale",
        "names for my cat",
        "names for a boat",
    ),
}
DRAFT_LENGTH = 5
PLAIN = (
    sys.executable,
    "-c",
    "from draftd.engine import hooks; del hooks.HOOKS['loop']; from draftd.engine.__main__ import main; main()",
)


@dataclass
class Tally:
    """What requests came to. A judged token is one whose predecessors in the round were all kept."""

    proposed: int = 0
    judged: int = 0
    accepted: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, record: dict[str, Any], seconds: float) -> None:
        accepted, proposed = record["accepted_by_position"], record["proposed_by_position"]
        self.proposed += record["proposed"]
        self.accepted += record["accepted"]
        self.judged += sum(map(min, proposed, [*proposed[:1], *accepted]))
        self.tokens += record["tokens"] - 1
        self.seconds += seconds


@contextmanager
def engine(start: tuple[str, ...] = ENGINE) -> Iterator[Engine]:
    """Run an engine on the demo pair."""
    made = Engine("--model", TARGET, "--draft-model", DRAFT, start=start)
    try:
        yield made.listening()
    finally:
        made.stop()


def stream(served: Engine, messages: list[dict[str, str]], **body: Any) -> tuple[float, float, str, int]:
    """Return seconds to the first token and from there to the last, the text, and how much was cached."""
    asked, first, last, text, cached = time.perf_counter(), 0.0, 0.0, "", 0
    usage: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    with served.open("/v1/chat/completions", messages=messages, **usage, **body) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event["choices"]:
                last = time.perf_counter()
                first = first or last
                text += event["choices"][0]["delta"].get("content") or ""
            if event.get("usage"):
                cached = event["usage"]["prompt_tokens_details"]["cached_tokens"]
    return first - asked, last - first, text, cached


def compare_rules() -> None:
    """Print acceptance and speed of both rules for each temperature."""
    print(f"draft length {DRAFT_LENGTH}, medians of {RUNS} runs")
    with engine(PLAIN) as plain, engine() as paper:
        for (kind, prompts), temperature in itertools.product(WORKLOADS.items(), TEMPERATURES):
            runs = [
                [one_run(served, prompts, temperature, run) for served in (plain, paper)]
                for run in range(RUNS + 1)
            ][1:]
            for at, rule in enumerate(("plain", "paper")):
                tallies = [run[at] for run in runs]
                offered = sum(t.accepted for t in tallies) / sum(t.proposed for t in tallies)
                judged = sum(t.accepted for t in tallies) / sum(t.judged for t in tallies)
                speed = statistics.median(t.tokens / t.seconds for t in tallies)
                shares = f"{offered:.2f} of proposed, {judged:.2f} of judged"
                print(f"{kind} {temperature:4} {rule}: {shares}, {speed:.0f} tokens/s")
            ratio = statistics.median((b.tokens / b.seconds) / (a.tokens / a.seconds) for a, b in runs)
            print(f"{kind} {temperature:4} tokens/s of paper by plain: {ratio:.2f}", flush=True)


def one_run(served: Engine, prompts: Sequence[str], temperature: float, run: int) -> Tally:
    """Send every prompt once."""
    tally = Tally()
    for at, prompt in enumerate(prompts):
        body: dict[str, Any] = {"max_tokens": 64, "temperature": temperature, "seed": 1000 * run + at}
        body["num_draft_tokens"] = DRAFT_LENGTH
        send = functools.partial(stream, served, [{"role": "user", "content": prompt}], **body)
        (_, seconds, _, _), _ = served.generation(send)
        tally.add(served.records("generation")[-1], seconds)
    return tally


def compare_first_tokens() -> None:
    """Print the time to the first token of a second turn, cold and after the first one."""
    cold: list[float] = []
    warm: list[float] = []
    with engine() as served:
        for run in range(RUNS + 1):
            for side, times in (("cold", cold), ("warm", warm)):
                history = f"{side} {run}: " + "the sea and the list of words " * 250
                messages = [{"role": "user", "content": history}]
                answer = "A list." if side == "cold" else stream(served, messages, max_tokens=16)[2]
                messages += [
                    {"role": "assistant", "content": answer},
                    {"role": "user", "content": "And why?"},
                ]
                seconds, _, _, cached = stream(served, messages, max_tokens=2)
                times.append(seconds)
                print(f"{side}: first token after {seconds * 1000:.0f} ms, {cached} tokens cached")
    print(f"median of warm by cold: {statistics.median(warm[1:]) / statistics.median(cold[1:]):.3f}")


def compare_distributions() -> None:
    """Print what each rule keeps by the distributions themselves, along the target model's answers."""
    target, tokenizer = mlx_lm.load(str(TARGET))
    draft, _ = mlx_lm.load(str(DRAFT))
    for (kind, prompts), temperature in itertools.product(WORKLOADS.items(), TEMPERATURES):
        plain, paper = [], []
        for seed, question in enumerate(prompts):
            mx.random.seed(seed)
            prompt = tokenizer.encode(turn(question))
            answer = mlx_lm.stream_generate(
                target, tokenizer, prompt, max_tokens=80, sampler=make_sampler(temperature)
            )
            text = mx.array([prompt + [response.token for response in answer]])
            rows = (model(text)[0, len(prompt) - 1 : -1] for model in (target, draft))
            p, q = (mx.softmax(row.astype(mx.float32) / temperature, axis=-1) for row in rows)
            plain.append((p * q).sum(axis=-1))
            paper.append(mx.minimum(p, q).sum(axis=-1))
        kept = [mx.concatenate(rule).mean().item() for rule in (plain, paper)]
        print(
            f"{kind} {temperature:4} by the distributions: plain {kept[0]:.2f}, paper {kept[1]:.2f} of judged"
        )


if __name__ == "__main__":
    compare_distributions()
    compare_first_tokens()
    compare_rules()
