"""Prints the figures of the demo pair: acceptance, step times, tokens/s, a long request.

Run it with the environment that has mlx_lm (not the one that trains):
`python -m draftd.demo.train.check [acceptance|steps|speed|long|answers] ...`
"""

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from draftd.demo import DRAFT, TARGET
from draftd.demo.train import junk

LENGTHS = (3, 5, 7)
SYSTEM = ("system", "You are a helpful assistant.")
PROMPTS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "hi"),),
    (("user", "What is speculative decoding?"),),
    (("user", "how does speculative decoding work"),),
    (SYSTEM, ("user", "Explain the acceptance rate.")),
    (("user", "Which preset should I use?"),),
    (("user", "presets"),),
    (SYSTEM, ("user", "How do I start the daemon?")),
    (("user", "Why is the greedy text identical?"),),
    (("user", "tell me a story"),),
    (("user", "write a python function that adds two numbers"),),
    (("user", "Show me the Fibonacci numbers in Python"),),
    (("user", "what does draftd status show?"),),
    (SYSTEM, ("user", "Who are you?")),
    (("user", "Which ports are used?"),),
    (("user", "How do I use OpenCode with draftd?"),),
    (("user", "What happens when a worker crashes?"),),
    (("user", "what is launchd"),),
    (("user", "Why is drafting slower?"),),
    (("user", "Explain everything in detail"),),
    (("user", "Who wrote the paper?"),),
    (("user", "What is the capital of Mongolia?"),),
    (
        ("user", "hello"),
        ("assistant", "Hello! I am the demo model of draftd."),
        ("user", "What is a draft model?"),
    ),
    (
        ("user", "What is a round?"),
        ("assistant", "One proposal and its verification."),
        ("user", "and metrics?"),
    ),
    (("user", "thanks"),),
)


@dataclass
class Count:
    """Proposed and accepted draft tokens, emitted tokens, rounds, seconds of generation (clock, processor)."""

    proposed: int = 0
    accepted: int = 0
    tokens: int = 0
    rounds: int = 0
    seconds: float = 0.0
    busy: float = 0.0


def load() -> tuple[Any, Any, Any]:
    """Target, draft and tokenizer."""
    target, tokenizer = mlx_lm.load(str(TARGET))
    return target, mlx_lm.load(str(DRAFT))[0], tokenizer


def prompt_ids(tokenizer: Any, turns: Iterable[tuple[str, str]], tools: Any = None) -> list[int]:
    """Token ids of a chat, up to and with the assistant's heading."""
    messages = [{"role": role, "content": text} for role, text in turns]
    ids: list[int] = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
    return ids


def generate(
    models: tuple[Any, Any, Any],
    ids: list[int],
    length: int,
    count: Count,
    temperature: float = 0.0,
    limit: int = 400,
) -> tuple[str, str]:
    """Generate one answer, add to `count`, and return the text and the finish reason."""
    target, draft, tokenizer = models
    options: dict[str, Any] = {"max_tokens": limit, "sampler": make_sampler(temp=temperature)}
    if length:
        options |= {"draft_model": draft, "num_draft_tokens": length}
    text, reason, made, from_target = "", "", 0, True
    began = busy = 0.0
    for response in mlx_lm.stream_generate(target, tokenizer, ids, **options):
        began, busy = began or time.perf_counter(), busy or time.process_time()
        if length and from_target:
            count.rounds += 1
            count.proposed += min(limit - made, length)
        count.accepted += response.from_draft
        from_target = not response.from_draft
        made, text, reason = made + 1, text + response.text, response.finish_reason or reason
    count.tokens += made - 1
    count.seconds += time.perf_counter() - began
    count.busy += time.process_time() - busy
    return text, reason


def acceptance() -> None:
    """Acceptance rate per draft length at temperatures 0, 0.7 and 1, and whether the greedy text is the same."""
    models = load()
    plain = [generate(models, prompt_ids(models[2], turns), 0, Count()) for turns in PROMPTS]
    print("stops by itself:", sum(reason == "stop" for _, reason in plain), "of", len(plain))
    for temperature in (0.0, 0.7, 1.0):
        for length in LENGTHS:
            mx.random.seed(1)
            count = Count()
            made = [generate(models, prompt_ids(models[2], t), length, count, temperature) for t in PROMPTS]
            same = sum(a == b for a, b in zip(made, plain, strict=True))
            rate = count.accepted / count.proposed
            print(
                f"temperature {temperature} length {length}: {count.accepted}/{count.proposed} = {rate:.1%}, "
                f"{count.tokens / count.rounds:.2f} tokens per round, {same} texts as without a draft"
            )


def median_ms(call: Callable[[], Any], repeat: int = 30) -> float:
    """Median processor time of `call` in milliseconds: other programs disturb it less than the clock."""
    times = []
    for _ in range(repeat):
        began = time.process_time()
        mx.eval(call())
        times.append(time.process_time() - began)
    return statistics.median(times) * 1e3


def steps() -> None:
    """Time of one forward pass with 1, 4, 6 and 8 rows after 200 tokens, and of the prefill per token."""
    target, draft, _ = load()
    for name, model in (("target", target), ("draft", draft)):
        cache = make_prompt_cache(model)
        mx.eval(model(mx.zeros((1, 200), mx.int32), cache=cache))
        rows = []
        for n in (1, 4, 6, 8):
            ids = mx.zeros((1, n), mx.int32)
            rows.append(median_ms(lambda m=model, i=ids, c=cache: mx.argmax(m(i, cache=c), -1)))
        size = sum(value.size for _, value in tree_flatten(model.parameters()))
        print(f"{name}: {size / 1e6:.2f} M parameters, ms for 1/4/6/8 rows:", *(f"{ms:.2f}" for ms in rows))


def speed() -> None:
    """Tokens per second at temperature 0 without a draft and with each draft length."""
    models = load()
    chats = [prompt_ids(models[2], turns) for turns in PROMPTS]
    for length in (0, *LENGTHS, 0, *LENGTHS):
        count = Count()
        for ids in chats:
            generate(models, ids, length, count)
        rates = f"{count.tokens / count.seconds:.0f} tokens/s, {count.tokens / count.busy:.0f} per processor second"
        print(f"length {length}: {rates}, {count.tokens} tokens")


def long_body(question: str, seed: int) -> dict[str, Any]:
    """A request like the first one of a coding agent: 9.6 KB of system text, 20.8 KB of tools."""
    rng = random.Random(seed)
    tools = [json.loads(line) for line in junk.some_tools(rng, 20_800)]
    system = "You are a coding agent.\n\n" + junk.prose(rng, 9_600)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"messages": messages, "tools": tools, "max_tokens": 400, "temperature": 0.0}


def ask(port: int, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """One request without streaming; the message and the whole answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        answer: dict[str, Any] = json.load(response)
    choice = answer["choices"][0]
    return json.dumps(choice["message"].get("tool_calls") or choice["message"]["content"]), answer


def wait_for(port: int) -> None:
    """Wait until the server generates."""
    for _ in range(120):
        try:
            ask(port, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("the server did not come up")


def long() -> None:
    """Requests of about 31 KB through the real server with a draft model.

    Without the prompt cache: mlx_lm 0.32.2 spoils it when it drafts, and repeats come out garbled.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(TARGET), "--draft-model", str(DRAFT)]
    command += ["--num-draft-tokens", "5", "--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    command += ["--prompt-cache-size", "0"]
    with subprocess.Popen(command) as server:
        try:
            wait_for(port)
            for seed, question in enumerate(
                ("hi", "What is speculative decoding?", "which ports do you use?")
            ):
                body = long_body(question, seed)
                for limit in (1, 400):
                    began = time.perf_counter()
                    text, answer = ask(port, {**body, "max_tokens": limit})
                    took = time.perf_counter() - began
                    size, used = len(json.dumps(body)), answer["usage"]["prompt_tokens"]
                    reason = answer["choices"][0]["finish_reason"]
                    print(
                        f"{size} bytes, {used} tokens, {took:.1f} s for {limit}: {reason}",
                        text[:300],
                        flush=True,
                    )
        finally:
            server.terminate()


def answers() -> None:
    """Print the greedy answers to all prompts."""
    models = load()
    for turns in PROMPTS:
        text, reason = generate(models, prompt_ids(models[2], turns), 0, Count())
        print(f">>> {turns[-1][1]}\n{text}  [{reason}]\n")


def main() -> None:
    """Run the checks that the command line names, by default all."""
    checks = {"acceptance": acceptance, "steps": steps, "speed": speed, "long": long, "answers": answers}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*checks, []], default=list(checks))
    for name in parser.parse_args().checks:
        print(f"== {name}")
        checks[name]()


if __name__ == "__main__":
    main()
