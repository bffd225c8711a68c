"""plan: which workers are loaded, what is compared, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from draftd.errors import ConfigError
from draftd.ops.bench.plan import PROMPTS, TEMPERATURES, make_plan, schedule
from draftd.profiles import Profile

PAIR = {"model": "big", "draft_model": "small"}


def profile(name: str = "p", **fields: object) -> Profile:
    return Profile.model_validate({"name": name, **PAIR, **fields})


def test_two_workers_serve_every_draft_length_and_the_baseline_has_no_draft_model() -> None:
    made = make_plan([profile(num_draft_tokens=5, server={"prefill_step_size": 512})], [3, 5, 7])
    assert list(made.workers) == ["baseline", "drafting"]
    baseline, drafting = made.workers.values()
    assert (baseline.draft_model, baseline.draft_length) == (None, 0)
    assert drafting.draft_model == "small"
    for worker in (baseline, drafting):
        assert worker.server.prompt_cache_size == 0  # no variant finds its prompt read already
        assert worker.server.prefill_step_size == 512
        assert worker.restart.max_failures == 1
        assert worker.autostart
    assert [(v.label, v.worker, v.draft_length) for v in made.variants] == [
        ("no drafting", "baseline", 0),
        ("3 (fast)", "drafting", 3),
        ("5 (balanced)", "drafting", 5),
        ("7 (max)", "drafting", 7),
        ("auto", "drafting", "auto"),
    ]


def test_a_profiles_own_draft_length_is_compared_too() -> None:
    labels = [variant.label for variant in make_plan([profile(num_draft_tokens=4)], [3, 5]).variants]
    assert labels == ["no drafting", "3 (fast)", "4", "5 (balanced)", "auto"]


def test_a_profile_that_tunes_itself_adds_no_fixed_length() -> None:
    made = make_plan(
        [profile(num_draft_tokens="auto", max_draft_tokens=6), profile("again", num_draft_tokens="auto")], [3]
    )
    assert [variant.label for variant in made.variants] == ["no drafting", "3 (fast)", "auto"]
    assert made.workers["drafting"].draft_length == 6


def test_a_profile_with_other_weights_gets_a_worker_and_one_with_the_same_shares_it() -> None:
    other = profile("other", draft_model="tiny", num_draft_tokens=2)
    same = profile("same", num_draft_tokens=6, aliases=("alias",), idle_timeout=9, port=4000)
    again = profile("again", num_draft_tokens=3)  # measured already
    made = make_plan([profile(), other, same, again], [3])
    assert [(w, p.draft_model) for w, p in made.workers.items()] == [
        ("baseline", None),
        ("drafting", "small"),
        ("drafting-2", "tiny"),
    ]
    assert [(v.label, v.worker, v.draft_length) for v in made.variants[3:]] == [
        ("other", "drafting-2", 2),
        ("same", "drafting", 6),
    ]


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([profile(draft_model=None)], "p has no draft_model: there is nothing to compare"),
        (
            [Profile(name="p", model="big", command=("serve", "{port}"))],
            "p has a command of its own: bench compares what mlx_lm.server drafts",
        ),
        (
            [profile("p"), profile("q", model="other")],
            "q has another target model than p: bench each on its own",
        ),
        (
            [profile("p"), profile("q", adapter_path="/a")],
            "q has another target model than p: bench each on its own",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(profiles: list[Profile], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_plan(profiles, [3])
    assert str(refused.value) == message


def test_every_variant_gets_the_same_prompts_and_no_place_in_the_order_is_anyones() -> None:
    variants = make_plan([profile()], [3, 5, 7]).variants
    trials = schedule(variants, runs=5)
    assert len(trials) == len(set(trials)) == 5 * len(PROMPTS) * len(TEMPERATURES) * len(variants)
    groups = [trials[at : at + len(variants)] for at in range(0, len(trials), len(variants))]
    firsts = Counter(group[0].variant.label for group in groups)
    assert set(firsts.values()) == {len(groups) // len(variants)}
    for group in groups:  # one prompt, asked of all variants in a row
        assert len({(t.prompt, t.kind, t.temperature, t.run) for t in group}) == 1
        assert {t.variant for t in group} == set(variants)
    for kind in PROMPTS:
        assert len({t.prompt for t in trials if t.kind == kind}) == len(PROMPTS[kind])
