"""Whatever the architecture: drafts that are verified and taken back leave the text as it is."""

from typing import Any

import pytest
from mlx_lm.models.cache import LRUPromptCache

from draftd.engine.generation.caches.sequence import INEXACT, ModelCaches
from tests.engine.architectures.drafting import DraftModel, drafted_text, plain_text, prompt_of, scripted
from tests.engine.architectures.models import LEFT_OUT, architectures, made_small, make, noisy
from tests.engine.architectures.proof import described, table, verdict

REFUSED = [name for name in made_small() if f"mlx_lm.models.{name}" in INEXACT]
DRAFTED = [name for name in made_small() if name not in REFUSED]
FIRST, SECOND = 36, 60  # tokens of an answer


def by_turns(position: int) -> float:
    """How much of a draft is right: first all, then half, then nothing, and so on."""
    return (1.0, 0.5, 0.0)[position // 12 % 3]


def test_all_architectures_are_in_the_table_and_all_of_them_are_exact() -> None:
    rows = table()
    assert sorted(rows) == architectures()
    assert [name for name, row in rows.items() if "NO" in row[3]] == []
    assert [name for name, row in rows.items() if row[3].startswith("left out")] == sorted(LEFT_OUT)


@pytest.mark.parametrize("name", DRAFTED)
def test_drafts_leave_the_text_as_it_is_also_in_a_second_turn(name: str) -> None:
    model = make(name)
    caches = ModelCaches(model)
    assert [*table()[name][1:3]] == [*described(model, caches)]
    prompt = prompt_of(6, seed=1)
    truth = plain_text(model, prompt, FIRST)
    cache = caches.make()
    drafted = drafted_text(model, cache, prompt, FIRST, scripted(truth, by_turns, seed=1))
    assert same(model, prompt, truth, drafted.text)

    read = (prompt + drafted.text)[: cache.position]
    prompt = prompt + drafted.text + prompt_of(30, seed=2)
    truth = plain_text(model, prompt, SECOND)
    stored = LRUPromptCache()
    stored.insert_cache("model", read, cache.layers)
    layers, rest = stored.fetch_nearest_cache("model", prompt)
    assert layers is not None
    assert rest == prompt[len(read) :]
    drafted = drafted_text(
        model, caches.adopt(layers, len(read)), prompt, SECOND, scripted(truth, by_turns, seed=2)
    )
    assert same(model, prompt, truth, drafted.text)


@pytest.mark.parametrize(
    "name", ["qwen2", "gemma3_text", "gpt_oss", "llama4", "qwen3_5", "falcon_h1", "baichuan_m1"]
)
def test_a_draft_model_proposes_what_it_would_without_rollback(name: str) -> None:
    model, draft_model = make(name), noisy(name)
    prompt = prompt_of(30, seed=3)
    truth = plain_text(model, prompt, 40)
    drafter, proposed = DraftModel(draft_model, prompt), []

    def propose(text: list[int], length: int) -> list[int]:
        proposed.append((list(text), drafter(text, length)))
        return proposed[-1][1]

    drafted = drafted_text(model, ModelCaches(model).make(), prompt, 40, propose)
    assert same(model, prompt, truth, drafted.text)
    assert drafted.refused
    assert drafted.rounds < 36
    for text, draft in proposed[::3]:
        assert same(draft_model, prompt + text, plain_text(draft_model, prompt + text, len(draft)), draft)


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_drafted_where_mlx_lm_itself_reads_several_tokens_otherwise_than_one_by_one(
    name: str,
) -> None:
    model = make(name)
    caches = ModelCaches(model)
    assert caches.refusal == INEXACT[f"mlx_lm.models.{name}"]
    prompt = prompt_of(6, seed=1)
    truth = plain_text(model, prompt, 20)
    drafted = drafted_text(model, caches.make(), prompt, 20, scripted(truth, lambda _: 1.0, seed=1))
    assert drafted.text != truth  # if it is, mlx_lm has been repaired


def same(model: Any, prompt: list[int], truth: list[int], text: list[int]) -> bool:
    """Whether two texts are the same, but for tokens between which the shape of a pass decides."""
    found = verdict(model, prompt, truth, text)
    assert found == "yes" or found.startswith("tie"), found
    return True
