"""A target and a draft model, and generations of theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.generate import generate_step

from draftd.engine.generation.caches.sequence import ModelCaches
from draftd.engine.generation.drafters.lookup import AnswerStore, LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.sampling import Greedy, Logits, Rule
from tests.engine.generation.toys import SCRIPTS
from tests.engine.served import turn

QUESTIONS = ["What is a draft model?", "Write a Python function that adds two numbers.", "Tell me a story."]
TOKENS = 100
ALL_SCRIPTS = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@dataclass
class Models:
    """A target and a draft model, and what is known of how their caches are made."""

    target: Any
    draft: Any
    vocabulary: int
    caches: dict[str, ModelCaches] = field(init=False)

    def __post_init__(self) -> None:
        self.caches = {"target": ModelCaches(self.target), "draft": ModelCaches(self.draft)}

    def readers(self, step: int = 512) -> tuple[Reader, Reader]:
        models = {"target": self.target, "draft": self.draft}
        made = [Reader(models[name], self.caches[name].make(), step) for name in models]
        return made[0], made[1]

    def generation(
        self,
        prompt: Sequence[int],
        policy: DraftPolicy,
        *,
        tokens: int = TOKENS,
        rule: Rule | None = None,
        readers: tuple[Reader, Reader] | None = None,
        model: bool = True,
        lookup: bool = True,
        store: AnswerStore | None = None,
        check: Callable[[int], None] = lambda _: None,
    ) -> Generation:
        target, draft = readers or self.readers()
        logits, rule = Logits(self.vocabulary), rule or Greedy()
        return Generation(
            text=list(prompt),
            max_tokens=tokens,
            target=target,
            rule=rule,
            logits=logits,
            policy=policy,
            draft=ModelDrafter(draft, logits, rule) if model else None,
            max_draft=8 if model else 0,
            lookup=LookupDrafter(prompt, store or AnswerStore()) if lookup else None,
            check=check,
        )

    def alone(self, prompt: Sequence[int], tokens: int = TOKENS) -> list[int]:
        """Return what mlx_lm generates without any draft."""
        steps = generate_step(mx.array(list(prompt)), self.target, max_tokens=tokens)
        return [int(token) for token, _ in steps]


def load(target: Path, draft: Path) -> tuple[Models, list[list[int]]]:
    """A pair, and prompts for it."""
    model, tokenizer = mlx_lm.load(str(target))[:2]
    pair = Models(model, mlx_lm.load(str(draft))[0], model.args.vocab_size)
    return pair, [tokenizer.encode(turn(question)) for question in QUESTIONS]
