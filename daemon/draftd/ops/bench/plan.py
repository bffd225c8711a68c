"""What a bench measures, and in which order. Pure.

One worker without a draft model is the baseline: mlx_lm drafts in one loop and generates plainly in another, so a
draft length of 0 on a drafting worker would not be "no drafting". All draft lengths share one drafting worker,
since a request may name its own: however many are compared, the target model is loaded twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from draftd.errors import ConfigError
from draftd.profile_tables import RestartPolicy
from draftd.profiles import DraftLength, Profile

BASELINE = "no drafting"
AUTO: Literal["auto"] = "auto"
PRESETS = {3: "fast", 5: "balanced", 7: "max"}
# Asked of real models and of the demo pair alike; a run takes the next one of each kind.
PROMPTS: Mapping[str, tuple[str, ...]] = {
    "code": (
        "Write a Python function for the Fibonacci numbers.",
        "Write Python code for speculative decoding.",
        "Write a Python function that adds two numbers, with tests.",
    ),
    "prose": (
        "Write an essay about speculative decoding.",
        "Tell me a long story.",
        "Give me a detailed explanation of how a draft model and a target model work together.",
    ),
    "chat": (
        "What is speculative decoding good for?",
        "When is drafting slower than no drafting?",
        "Why do I need a draft model?",
    ),
}
TEMPERATURES = (0.0, 0.7)
WARM_UP = "Count from one to ten."


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to serve the target model. `worker` is its profile in the bench's own daemon."""

    label: str
    worker: str
    draft_length: DraftLength


@dataclass(frozen=True, slots=True)
class Plan:
    """The workers to load and the variants to compare; the first variant is the baseline."""

    workers: Mapping[str, Profile]
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One generation to measure. `run` counts from 0."""

    variant: Variant
    kind: str
    temperature: float
    run: int

    @property
    def prompt(self) -> str:
        """The same for all variants of a run."""
        prompts = PROMPTS[self.kind]
        return prompts[self.run % len(prompts)]


def make_plan(profiles: Sequence[Profile], lengths: Sequence[int]) -> Plan:
    """Compare `lengths` and "auto" on the first profile's models, and the other profiles as they are.

    Raises ConfigError for profiles that cannot be compared.
    """
    first, *others = profiles
    for profile in profiles:
        _check(profile, first)
    fixed = {*lengths} if first.auto_draft else {*lengths, first.draft_length}
    own: list[DraftLength] = [*sorted(fixed), AUTO]
    workers = {"baseline": _worker(first, "baseline", drafting=False)}
    workers["drafting"] = _worker(first, "drafting", drafting=True)
    variants = [Variant(BASELINE, "baseline", 0)]
    variants += [Variant(length_label(length), "drafting", length) for length in own]
    for profile in others:
        made = _worker(profile, f"drafting-{len(workers)}", drafting=True)
        name = next((n for n, known in workers.items() if _same(known, made)), made.name)
        workers.setdefault(name, made)
        length: DraftLength = AUTO if profile.auto_draft else profile.draft_length
        if all((name, length) != (v.worker, v.draft_length) for v in variants):
            variants.append(Variant(profile.name, name, length))
    return Plan(workers, tuple(variants))


def _check(profile: Profile, first: Profile) -> None:
    if profile.command:
        raise ConfigError(
            f"{profile.name} has a command of its own: bench compares what mlx_lm.server drafts"
        )
    if profile.draft_model is None:
        raise ConfigError(f"{profile.name} has no draft_model: there is nothing to compare")
    if (profile.model, profile.adapter_path) != (first.model, first.adapter_path):
        raise ConfigError(f"{profile.name} has another target model than {first.name}: bench each on its own")


def length_label(length: DraftLength) -> str:
    """'5 (balanced)', 'auto'."""
    return f"{length} ({PRESETS[length]})" if length != AUTO and length in PRESETS else str(length)


def _worker(profile: Profile, name: str, *, drafting: bool) -> Profile:
    """The profile's models and flags alone. No prompt is cached, since all variants but the first would find theirs
    there; no restart, since a worker that dies spoils the figures.
    """
    return Profile(
        name=name,
        model=profile.model,
        draft_model=profile.draft_model if drafting else None,
        num_draft_tokens=profile.num_draft_tokens if drafting else None,
        max_draft_tokens=profile.max_draft_tokens if drafting else None,
        adapter_path=profile.adapter_path,
        defaults=profile.defaults,
        server=profile.server.model_copy(update={"prompt_cache_size": 0}),
        limits=profile.limits,
        health=profile.health,
        restart=RestartPolicy(max_failures=1),
    )


def _same(one: Profile, other: Profile) -> bool:
    """Whether one worker can serve as both: requests name their draft length."""
    ignored = {"name", "num_draft_tokens", "max_draft_tokens"}
    return one.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)


def schedule(variants: Sequence[Variant], runs: int) -> list[Trial]:
    """All trials, interleaved: the variants of one prompt directly after one another, and each variant first in
    turn, so that a machine that gets warm or busy slows all of them alike.
    """
    trials: list[Trial] = []
    turn = 0
    for run in range(runs):
        for kind in PROMPTS:
            for temperature in TEMPERATURES:
                order = [*variants[turn % len(variants) :], *variants[: turn % len(variants)]]
                trials += [Trial(variant, kind, temperature, run) for variant in order]
                turn += 1
    return trials
