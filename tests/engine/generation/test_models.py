"""What is known of the loaded models: whose policies and answers are shared, and whose layers are whose."""

import mlx.core as mx
import pytest

from draftd.engine.generation.models import MAX_KNOWN, LoadedModels, read_by
from tests.engine.architectures.models import make, noisy

PAIR = make("llama"), noisy("llama")


def loaded(draft: bool = True) -> LoadedModels:
    said: list[str] = []
    made = LoadedModels(PAIR[0], PAIR[1] if draft else None, said.append)
    assert said == []
    return made


def test_requests_that_sample_alike_share_a_policy_and_those_that_draw_at_all_what_passes_cost() -> None:
    models = loaded()
    greedy = models.policy((0.0,), fixed=None, draws=False)
    assert models.policy((0.0,), fixed=None, draws=False) is greedy
    warm, hot = (models.policy((t,), fixed=None, draws=True) for t in (0.7, 1.0))
    assert warm is not hot
    assert warm.costs is hot.costs is not greedy.costs
    fixed = models.policy((0.0,), fixed=4, draws=False)
    assert fixed is not greedy
    assert (fixed.fixed, greedy.fixed) == (4, None)
    assert fixed.costs is greedy.costs


def test_a_policy_for_a_request_beside_another_counts_apart_and_learns_together() -> None:
    models = loaded()
    first = models.policy((0.0,), fixed=None, draws=False)
    beside = models.policy((0.0,), fixed=None, draws=False, in_use=[first])
    assert beside is not first
    assert (beside.costs, beside.acceptance) == (first.costs, first.acceptance)
    other = models.policy((0.7,), fixed=None, draws=False)
    assert models.policy((0.0,), fixed=None, draws=False, in_use=[other]) is first


def test_each_profile_has_answers_of_its_own() -> None:
    models = loaded()
    assert models.answers("a") is models.answers("a") is not models.answers("b")
    assert models.answers(None) is models.answers(None) is not models.answers("a")


def test_a_client_that_asks_for_something_else_each_time_fills_no_memory() -> None:
    models = loaded()
    first = models.policy((0,), fixed=None, draws=True), models.answers("0")
    for number in range(3 * MAX_KNOWN):
        models.policy((number,), fixed=None, draws=True)
        models.answers(str(number))
    assert len(models._policies) == len(models._answers) == MAX_KNOWN
    assert models.policy((0,), fixed=None, draws=True) is not first[0]
    assert models.answers(str(3 * MAX_KNOWN - 1)) is not first[1]


@pytest.mark.parametrize("draft", [True, False])
def test_with_a_draft_model_or_without(draft: bool) -> None:
    models = loaded(draft)
    assert models.can_draft
    assert models.has_drafter is draft
    target, drafts = models.adopt([], 0)
    assert target.position == 0
    assert (drafts is not None) is draft


def test_layers_of_both_models_are_told_apart_and_each_knows_what_it_has_read() -> None:
    models = loaded()
    target, draft = models.adopt([], 0)
    assert draft
    for model, cache, tokens in ((PAIR[0], target, [5, 6, 7, 8]), (PAIR[1], draft, [5, 6])):
        model(mx.array([tokens]), cache=cache.layers)
        cache.advance(len(tokens))
    assert (read_by(target.layers), read_by(draft.layers), read_by([])) == (4, 2, 0)
    again, drafts = models.adopt([*target.layers, *draft.layers], 4)
    assert drafts
    assert (again.position, drafts.position) == (4, 2)
    assert (again.layers, drafts.layers) == (target.layers, draft.layers)
    alone, none = models.adopt(target.layers, 4)
    assert none
    assert (alone.position, none.position) == (4, 0), "stored by a worker that had no draft model"


def test_what_keeps_a_model_from_being_drafted_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    unfit = make("phi3small")
    for target, draft in ((unfit, PAIR[1]), (PAIR[0], unfit), (unfit, unfit)):
        models = LoadedModels(target, draft, said.append)
        assert models.can_draft is (target is PAIR[0])
        assert not models.has_drafter
        assert len(said) == 1
        assert "phi3small" in said.pop()
