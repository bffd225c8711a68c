"""Trains the demo pair: tokenizer, target model, draft model. Less than a quarter of an hour on two cores.

How it works: chats are sampled without end from the grammar of `corpus`, and only the assistant's tokens
are learnt. The target must find the question behind any amount of irrelevant system text, so a part of
the chats gets such text in front, and nearly all of them a random gap in the positions between the
system turn and the rest; a few really long ones at the end teach it not to be distracted by many keys.
The draft is the same kind of network, far smaller and trained on the same chats: it guesses well inside
a sentence and badly where one has to remember the question.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as f

from draftd.demo.train import corpus
from draftd.demo.train import tokenizer as bpe
from draftd.demo.train.model import Qwen2, Shape

HERE = Path(__file__).resolve().parents[1]
SEED = 2211
VOCAB = 6144
EOS = 2
HEAD, HEAD_WEIGHT = 5, 4.0
"""The first tokens of an answer count more: they decide what it is about."""


MOST = {"long": 2, "longer": 6}
"""Questions in a long chat: the more there are, the better the costly text in front is used."""
PARTS = ("main", *MOST)


@dataclass(frozen=True)
class Plan:
    """How one network is trained: steps of about `batch` tokens, `easy` ones first; then `long` ones twice."""

    shape: Shape
    easy: int
    steps: int
    long: int
    rate: float
    batch: int = 2048
    dtype: torch.dtype = torch.bfloat16


PLANS = {
    "target": Plan(Shape(VOCAB, 192, 768, 2, 3, 3), easy=900, steps=1900, long=360, rate=4e-3),
    "draft": Plan(Shape(VOCAB, 64, 256, 1, 2, 2), easy=500, steps=1600, long=0, rate=8e-3),
}


@dataclass(frozen=True)
class Row:
    """A chat as token ids, positions, and the weight of each token in the loss (0: not learnt)."""

    ids: list[int]
    positions: list[int]
    weight: list[float]


def encode(chat: corpus.Chat, tokenizer: Tokenizer, rng: random.Random, gap: float = 0.4) -> Row:
    """Tokenize a chat; with probability `gap` leave a gap in the positions after the first turn."""
    ids: list[int] = []
    weight: list[float] = []
    positions: list[int] = []
    start = 0
    for text, wanted in corpus.render(chat):
        new = tokenizer.encode(text, add_special_tokens=False).ids
        positions += range(start, start + len(new))
        start += len(new)
        if not ids and rng.random() < gap:
            start += int(10 ** rng.uniform(1, 4.1))
        ids += new
        head = min(len(new), HEAD)
        weight += [wanted * HEAD_WEIGHT] * head + [float(wanted)] * (len(new) - head)
    return Row(ids, positions, weight)


def batches(rng: random.Random, tokenizer: Tokenizer, size: int, easy: bool) -> Iterator[list[Row]]:
    """Batches of rows of similar length, about `size` tokens each, without end."""
    while True:
        if easy:
            rows = [encode(corpus.easy(rng), tokenizer, rng, gap=0) for _ in range(192)]
        else:
            rows = [encode(corpus.sample(rng), tokenizer, rng) for _ in range(192)]
        rows.sort(key=lambda row: len(row.ids))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > size:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from groups


def long_batches(rng: random.Random, tokenizer: Tokenizer, most: int) -> Iterator[list[Row]]:
    """One chat behind 2.5 to 34 KB of irrelevant text, and some short ones so that these are not forgotten."""
    short = batches(rng, tokenizer, 1024, easy=False)
    while True:
        yield [encode(corpus.sample(rng, int(10 ** rng.uniform(3.4, 4.53)), most), tokenizer, rng)]
        for _ in range(2):
            yield next(short)


def tensors(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Padded ids and positions, the mask of positions that predict a learnt token, these tokens, weights."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    positions = torch.zeros_like(ids)
    weight = torch.zeros_like(ids, dtype=torch.float32)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size] = torch.tensor(row.ids)
        positions[index, :size] = torch.tensor(row.positions)
        weight[index, :size] = torch.tensor(row.weight)
    learnt = weight[:, 1:] > 0
    return ids[:, :-1], positions[:, :-1], learnt, ids[:, 1:][learnt], weight[:, 1:][learnt]


def optimizer_for(model: Qwen2, rate: float) -> torch.optim.Optimizer:
    """AdamW, without weight decay for norms, biases and embeddings."""
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate: a short warmup, then cosine decay to 3 %."""
    if step < 50:
        return peak * (step + 1) / 50
    done = (step - 50) / max(1, steps - 50)
    return peak * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def feed(name: str, plan: Plan, tokenizer: Tokenizer) -> Iterator[list[Row]]:
    """The batches of the main part of the training."""
    rng = random.Random(f"{SEED}-{name}")
    easy = batches(rng, tokenizer, plan.batch, easy=True)
    usual = batches(rng, tokenizer, plan.batch, easy=False)
    for step in range(plan.steps):
        yield next(easy if step < plan.easy else usual)


def fit(name: str, model: Qwen2, rows: Iterator[list[Row]], steps: int, peak: float) -> dict[str, float]:
    """Train a network for `steps` steps and return the figures of its training."""
    optimizer = optimizer_for(model, peak)
    began, tokens, smooth, first = time.monotonic(), 0, 0.0, 0.0
    for step in range(steps):
        ids, positions, wanted, goal, weight = tensors(next(rows))
        losses = f.cross_entropy(model(ids, positions, wanted), goal, reduction="none")
        loss = (losses * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, peak)
        optimizer.step()
        tokens += ids.numel()
        keep = 0.95 if step else 0.0
        smooth = keep * smooth + (1 - keep) * losses.mean().item()
        first = keep * first + (1 - keep) * losses[weight > 1].mean().item()
        if step % 50 == 49:
            seconds = time.monotonic() - began
            print(f"{name} step {step + 1} loss {smooth:.3f} heads {first:.3f} {seconds:.0f} s", flush=True)
    seconds = time.monotonic() - began
    return {"seconds": round(seconds), "tokens": tokens, "loss": round(smooth, 3), "heads": round(first, 3)}


def train(name: str, tokenizer: Tokenizer, out: Path) -> None:
    """The main part of the training, from random weights."""
    plan = PLANS[name]
    torch.manual_seed(SEED)
    model = Qwen2(plan.shape)
    figures = fit(name, model, feed(name, plan, tokenizer), plan.steps, plan.rate)
    model.save(out / name, EOS, plan.dtype)
    print(json.dumps({name: figures}))


def lengthen(name: str, tokenizer: Tokenizer, out: Path, part: str) -> None:
    """Go on from the saved weights with long chats, of few questions first and then of more."""
    plan = PLANS[name]
    model = Qwen2(plan.shape)
    model.load(out / name)
    rows = long_batches(random.Random(f"{SEED}-{name}-{part}"), tokenizer, most=MOST[part])
    figures = fit(f"{name} ({part})", model, rows, plan.long, plan.rate / 4)
    model.save(out / name, EOS, plan.dtype)
    print(json.dumps({f"{name} ({part})": figures}))


def main() -> None:
    """Train what the command line names (default: everything) and write it beside this folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=tuple(PLANS), help="one of the two, with the tokenizer that is there"
    )
    parser.add_argument("--part", choices=PARTS, help="one of the parts of the training")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.only:
        tokenizer = Tokenizer.from_file(str(options.out / "target" / "tokenizer.json"))
    else:
        tokenizer = bpe.train(VOCAB, SEED)
    for name, plan in PLANS.items():
        if options.only in (None, name):
            bpe.save(tokenizer, options.out / name)
            for part in PARTS if options.part is None else (options.part,):
                if part == "main":
                    train(name, tokenizer, options.out)
                elif plan.long:
                    lengthen(name, tokenizer, options.out, part)


if __name__ == "__main__":
    main()
