"""What comes out is distributed as the target model's own tokens, however it was drafted."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from draftd.engine.generation.choices import Choice
from draftd.engine.generation.rows import Rows
from draftd.engine.generation.sampling import Greedy, Logits, Rule, Seeded, Shape, Speculative, _after
from draftd.protocol import PAPER_RULE, PLAIN_RULE
from tests.engine.chance import chi_square, most_by_chance
from tests.engine.generation.toys import (
    DRAFT,
    SCRIPTS,
    TARGET,
    Scripted,
    Table,
    by_lookup,
    by_model,
    text_of,
    toy_generation,
)

TOKENS = 1600
DRAWS = 600
DRAFTED = {name: script for name, script in SCRIPTS.items() if name != "alone"}
by_draft = pytest.mark.parametrize("script", DRAFTED.values(), ids=DRAFTED)
by_source = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)

PLAIN = Shape(1.0)
SHAPES: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.6},
    "top_p": {"temperature": 1.0, "top_p": 0.75},
    "min_p": {"temperature": 1.3, "min_p": 0.4},
    "top_k": {"temperature": 0.8, "top_k": 2},
    "XTC": {"temperature": 1.0, "xtc_probability": 0.4, "xtc_threshold": 0.2},
    "XTC that spares a token": {
        "temperature": 1.0,
        "xtc_probability": 0.7,
        "xtc_threshold": 0.2,
        "xtc_special_tokens": (0,),
    },
    "all": {
        "temperature": 0.9,
        "top_p": 0.95,
        "min_p": 0.05,
        "top_k": 3,
        "xtc_probability": 0.3,
        "xtc_threshold": 0.2,
    },
}


def shares(row: mx.array) -> list[float]:
    values: Any = mx.softmax(row, axis=-1).tolist()
    return list(values)


def logits(*rows: Sequence[float]) -> mx.array:
    return mx.log(mx.array(rows))


def drawn_from(table: Table, **shape: Any) -> list[list[float]]:
    """Return the table as a shape leaves it; where XTC tosses a coin, the mean of both sides."""
    chance = shape.pop("xtc_probability", 0.0)
    plain = [shares(row) for row in Shape(**shape)(logits(*table), 0)]
    if not chance:
        return plain
    cut = [shares(row) for row in Shape(**shape, xtc_probability=1.0)(logits(*table), 0)]
    return [
        [(1 - chance) * a + chance * b for a, b in zip(row, other, strict=True)]
        for row, other in zip(plain, cut, strict=True)
    ]


def fits(drawn: Sequence[int], expected: Sequence[float]) -> bool:
    return chi_square(drawn, expected) < most_by_chance(sum(share > 0 for share in expected) - 1)


def is_chain_of(text: list[int], table: Table) -> None:
    """Check each token by the one before it, and each two tokens together by the one before them."""
    size = len(table)
    for last in range(size):
        after = [b for a, b in pairwise(text) if a == last]
        assert fits(after, table[last]), f"after {last}: {Counter(after)}, expected {table[last]}"
        pairs = [size * b + c for a, b, c in zip(text, text[1:], text[2:], strict=False) if a == last]
        joint = [table[last][b] * table[b][c] for b, c in product(range(size), repeat=2)]
        assert fits(pairs, joint), f"two after {last}"


# --- the paper's rule ---------------------------------------------------------------------------------------


@by_source
def test_tokens_are_distributed_as_the_target_models_own(script: list[Choice]) -> None:
    mx.random.seed(1)
    is_chain_of(text_of(toy_generation(Speculative(PLAIN), script, tokens=TOKENS)), TARGET)


@pytest.mark.parametrize(
    ("name", "source"),
    [*((name, "everything") for name in SHAPES), *product(["XTC", "all"], ["a draft model", "lookups"])],
)
def test_they_are_where_the_request_shapes_the_distribution(name: str, source: str) -> None:
    script, shape = SCRIPTS[source], SHAPES[name]
    mx.random.seed(2)
    generation = toy_generation(Speculative(Shape(**shape, coins=5)), script, tokens=TOKENS)
    is_chain_of(text_of(generation), drawn_from(TARGET, **shape))


PAIRS = [
    ("alike", [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]),
    ("equal", [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]),
    ("far apart", [0.05, 0.15, 0.8], [0.8, 0.15, 0.05]),
    ("the draft model is sure of what cannot be", [0.0, 0.6, 0.4], [1.0, 0.0, 0.0]),
    ("the target model is sure", [0.0, 1.0, 0.0], [0.3, 0.4, 0.3]),
]
by_pair = pytest.mark.parametrize(
    ("p", "q"), [pair[1:] for pair in PAIRS], ids=[name for name, _, _ in PAIRS]
)
LAST = [0.2, 0.2, 0.6]  # of the target model, after the draft


def verified(rule: Rule, p: mx.array, q: mx.array | None, drafted: mx.array) -> tuple[mx.array, mx.array]:
    """Verify one draft."""
    counts = mx.array([drafted.size])
    kept, token = rule.verify(p[None], None if q is None else q[None], drafted[None], counts)
    return kept[0], token[0]


def rounds(p: list[float], q: list[float] | None) -> list[tuple[int, list[int]]]:
    """Return of many drafts of one token how many were kept, and the tokens that came out."""
    rule = Speculative(PLAIN)
    mx.random.seed(7)
    p_rows, q_rows, found = logits(p, LAST), logits(q) if q else None, []
    for number in range(DRAWS):
        drafted = mx.array([number % 3]) if q_rows is None else rule.draw(q_rows, 0)
        kept, token = verified(rule, p_rows, q_rows, drafted)
        found.append(mx.concatenate([part.reshape(1).astype(mx.int32) for part in (kept, drafted, token)]))
    drawn: Any = mx.stack(found).tolist()
    return [(kept, [*[drafted][:kept], token]) for kept, drafted, token in drawn]


@by_pair
@pytest.mark.parametrize("how", ["drawn", "looked up"])
def test_a_round_gives_the_target_models_tokens(p: list[float], q: list[float], how: str) -> None:
    drawn = rounds(p, q if how == "drawn" else None)
    assert fits([tokens[0] for _, tokens in drawn], p)
    after = [tokens[1] for kept, tokens in drawn if kept == 1]
    assert fits(after, LAST)


@by_pair
def test_as_many_are_kept_as_the_distributions_have_in_common(p: list[float], q: list[float]) -> None:
    within = 4 * math.sqrt(0.25 / DRAWS)
    assert sum(kept for kept, _ in rounds(p, q)) / DRAWS == pytest.approx(sum(map(min, p, q)), abs=within)
    looked_up = sum(kept for kept, _ in rounds(p, None)) / DRAWS
    assert looked_up == pytest.approx(1 / 3, abs=within), (
        "p of each of three tokens that are proposed in turn"
    )


def test_nothing_is_kept_after_the_first_that_is_not() -> None:
    never, always = [0.0, 1.0], [1.0, 0.0]
    drafted = mx.array([0, 0, 0], mx.uint32)
    for q in (logits(always, always, always), None):
        rule = Speculative(PLAIN)
        kept, token = verified(rule, logits(always, never, always, always), q, drafted)
        assert (kept.item(), token.item()) == (1, 1)
        kept, token = verified(rule, logits(always, always, always, never), q, drafted)
        assert (kept.item(), token.item()) == (3, 1)


def test_where_rounding_leaves_nothing_over_the_target_models_distribution_is_as_good() -> None:
    p = mx.array([[0.4, 0.6], [0.4, 0.6]])
    refused = mx.array([[0.5, 0.6], [0.3, 0.6]])
    assert mx.allclose(_after(p, refused), mx.array([[0.4, 0.6], [0.1, 0.0]]))


@by_pair
def test_the_agreement_of_tokens_from_p_is_on_average_what_would_have_been_kept(
    p: list[float], q: list[float]
) -> None:
    places = [n for n, share in enumerate(p) if share]
    rows = logits(*[p] * len(places)), logits(*[q] * len(places))
    agreed: Any = Speculative(PLAIN).agreement(*rows, mx.array(places), 0).tolist()
    mean = sum(p[place] * share for place, share in zip(places, agreed, strict=True))
    assert mean == pytest.approx(sum(map(min, p, q)), abs=1e-5)


# --- shapes -------------------------------------------------------------------------------------------------

ROW = [0.4, 0.3, 0.15, 0.1, 0.05]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_distribution_is_that_of_mlx_lms_sampler(shape: dict[str, Any]) -> None:
    others = {name: value for name, value in shape.items() if name != "temperature"}
    sampler = make_sampler(shape["temperature"], **others | {"xtc_special_tokens": [0]})
    mx.random.seed(3)
    drawn: Any = mx.concatenate([sampler(logits(ROW)) for _ in range(4 * DRAWS)]).tolist()
    assert fits(drawn, drawn_from([ROW], **shape | {"xtc_special_tokens": (0,)})[0])


@pytest.mark.parametrize("scale", [0.0, 200.0, -200.0])
def test_logits_need_not_be_normalised(scale: float) -> None:
    for shape in SHAPES.values():
        rule = Shape(**shape)
        rows = logits(ROW, ROW[::-1])
        assert mx.allclose(mx.softmax(rule(rows, 3), -1), mx.softmax(rule(rows + scale, 3), -1), atol=1e-4)


@pytest.mark.parametrize(("shape", "left"), [({"top_p": 0.9}, 4), ({"min_p": 0.3}, 3), ({"top_k": 2}, 2)])
def test_what_is_filtered_out_cannot_be_drawn(shape: dict[str, Any], left: int) -> None:
    assert (mx.softmax(Shape(0.7, **shape)(logits(ROW), 0)) > 0).sum().item() == left


def test_a_position_has_one_coin_in_a_draft_and_in_its_verification() -> None:
    shape = Shape(1.0, xtc_probability=0.5, coins=3)
    together = shape(logits(*[ROW] * 40), 10)
    one_by_one = mx.concatenate([shape(logits(ROW), 10 + n) for n in range(40)])
    assert mx.array_equal(together, one_by_one)
    first: Any = together[:, 0].tolist()
    heads = sum(row == float("-inf") for row in first)
    assert 8 < heads < 32
    assert not mx.array_equal(together, Shape(1.0, xtc_probability=0.5, coins=4)(logits(*[ROW] * 40), 10))


# --- what shapes logits by the text before them -------------------------------------------------------------


def after_penalty(table: Table, before: Sequence[int], processors: Sequence[Any]) -> list[float]:
    row = logits(table[before[-1]])
    for processor in processors:
        row = processor(mx.array(list(before)), row)
    return shares(row[0])


PENALTIES: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 2.0, "repetition_context_size": 2},
    "presence": {"presence_penalty": 1.0, "presence_context_size": 2},
    "frequency": {"frequency_penalty": 0.8, "frequency_context_size": 2},
    "bias": {"logit_bias": {1: 1.5, 3: -1.0}},
    "both": {"logit_bias": {0: -1.0}, "presence_penalty": 0.7, "presence_context_size": 2},
}
CONTEXT = 2


@pytest.mark.parametrize("penalties", PENALTIES.values(), ids=PENALTIES)
def test_penalties_see_the_prompt_and_what_was_drafted(penalties: dict[str, Any]) -> None:
    script = SCRIPTS["everything"]
    processors = make_logits_processors(**penalties)
    mx.random.seed(4)
    shaped = Logits(4, processors, CONTEXT)
    text = text_of(toy_generation(Speculative(PLAIN), script, tokens=TOKENS, logits=shaped))
    for before in product(range(4), repeat=CONTEXT):
        after = [c for a, b, c in zip(text, text[1:], text[2:], strict=False) if (a, b) == before]
        assert fits(after, after_penalty(TARGET, before, processors)), f"after {before}"


def test_penalties_of_a_first_token_see_the_prompt_before_it() -> None:
    processors = make_logits_processors(presence_penalty=50.0, presence_context_size=3)
    shaped = Logits(4, processors, 3)
    for script in SCRIPTS.values():
        generation = toy_generation(Greedy(), script, tokens=1, prompt=(0, 3, 1), logits=shaped)
        assert text_of(generation)[-1] == 2, "the only token that is not among the last three"


def test_rows_together_are_the_rows_one_by_one() -> None:
    seen: list[list[int]] = []

    def noted(tokens: mx.array, row: mx.array) -> mx.array:
        before: Any = tokens.tolist()
        seen.append(before)
        return row + len(before)

    shaped = Logits(4, [noted], 3)
    rows = shaped(Rows.of(logits(*TARGET)), [9, 8, 7, 6], [5, 4, 3]).array
    assert seen == [[8, 7, 6], [8, 7, 6, 5], [8, 7, 6, 5, 4], [8, 7, 6, 5, 4, 3]]
    assert mx.array_equal(rows, logits(*TARGET) + mx.array([[3], [4], [5], [6]]))
    seen.clear()
    shaped(Rows.of(logits(*TARGET[:2])), [9, 8, 7, 6], [5, 4, 3])
    assert seen == [[8, 7, 6, 5, 4], [8, 7, 6, 5, 4, 3]], "the last row stands after all of them"


# --- vocabularies of different sizes ------------------------------------------------------------------------

SMALLER: Table = [[0.3, 0.5, 0.2], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3]]
LARGER: Table = [[*(share / 2 for share in row), 0.3, 0.2] for row in DRAFT]


@pytest.mark.parametrize(
    "rule", [Speculative(PLAIN), Seeded(PLAIN, 5), Greedy()], ids=["paper", "seeded", "greedy"]
)
@pytest.mark.parametrize("draft", [SMALLER, LARGER], ids=["fewer tokens", "more tokens"])
def test_a_draft_model_with_another_vocabulary_changes_nothing(draft: Table, rule: Rule) -> None:
    mx.random.seed(6)
    text = text_of(toy_generation(rule, SCRIPTS["everything"], tokens=TOKENS, draft=draft))
    if isinstance(rule, Speculative):
        is_chain_of(text, TARGET)
    else:
        assert text == text_of(toy_generation(rule, tokens=TOKENS))


def test_no_token_is_proposed_that_the_target_model_lacks_nor_one_that_the_draft_model_lacks() -> None:
    rows: Any = Logits(4)(Rows.of(mx.zeros((2, 3))), [], [1]).array.tolist()
    assert rows == [[0.0, 0.0, 0.0, -math.inf]] * 2
    assert Logits(4)(Rows.of(mx.zeros((2, 6))), [], [1]).array.shape == (2, 4)


# --- a seed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{"temperature": 1.0}, SHAPES["all"]], ids=["plain", "shaped"])
def test_with_a_seed_the_text_is_the_same_whatever_is_drafted(shape: dict[str, Any]) -> None:
    def text(seed: int, *script: Choice) -> list[int]:
        return text_of(toy_generation(Seeded(Shape(**shape, coins=seed), seed), script, tokens=100))

    scripts = [*DRAFTED.values(), *(by_model(length) for length in range(1, 8)), by_lookup(3)]
    alone = text(1, *SCRIPTS["alone"])
    for script in scripts:
        assert text(1, *script) == alone, script
    assert text(2, *SCRIPTS["alone"]) != alone


@pytest.mark.parametrize("name", ["temperature", "XTC", "all"])
def test_with_a_seed_each_position_is_drawn_anew(name: str) -> None:
    shape = SHAPES[name]
    text = text_of(toy_generation(Seeded(Shape(**shape, coins=8), 8), by_model(3), tokens=TOKENS))
    is_chain_of(text, drawn_from(TARGET, **shape))


def test_over_seeds_the_first_tokens_are_distributed_as_the_target_models() -> None:
    texts = [
        text_of(toy_generation(Seeded(PLAIN, seed), by_model(2), tokens=2, prompt=[0]))[1:]
        for seed in range(DRAWS)
    ]
    assert fits([first for first, _ in texts], TARGET[0])
    joint = [TARGET[0][a] * TARGET[a][b] for a, b in product(range(4), repeat=2)]
    assert fits([4 * first + second for first, second in texts], joint)


def test_a_draft_with_the_same_noise_is_kept_nearly_as_often_as_by_the_papers_rule() -> None:
    def kept(rule: Rule) -> float:
        mx.random.seed(9)
        generation = toy_generation(rule, by_model(1), tokens=TOKENS)
        text_of(generation)
        policy: Any = generation.policy
        assert isinstance(policy, Scripted)
        return sum(kept for *_, kept in policy.judgements) / len(policy.judgements)

    assert kept(Seeded(PLAIN, 9)) > 0.85 * kept(Speculative(PLAIN))


# --- no chance ----------------------------------------------------------------------------------------------


@by_draft
def test_without_temperature_the_likeliest_token_is_taken(script: list[Choice]) -> None:
    ranked: Table = [[0.2, 0.5, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.1, 0.2]]
    text = text_of(toy_generation(Greedy(), script, tokens=100, prompt=[0], target=ranked))
    assert text == [n % 4 for n in range(101)]


@pytest.mark.parametrize("rule", [Greedy(), Seeded(PLAIN, 3)], ids=["greedy", "seeded"])
def test_where_nothing_is_left_to_chance_the_agreement_is_yes_or_no(rule: Rule) -> None:
    p, q = (rule.shape(logits(*table), 5) for table in (TARGET, DRAFT))
    taken = mx.concatenate([rule.draw(row[None], 5 + n) for n, row in enumerate(p)])
    agreed: Any = rule.agreement(p, q, taken, 5).tolist()
    proposed = [rule.draw(row[None], 5 + n).item() for n, row in enumerate(q)]
    assert agreed == [a == b for a, b in zip(taken.tolist(), proposed, strict=True)]  # type: ignore[arg-type]


def test_rules_have_the_names_of_the_protocol() -> None:
    makes: list[Callable[[], Rule]] = [Greedy, lambda: Speculative(PLAIN), lambda: Seeded(PLAIN, 1)]
    assert [make().name for make in makes] == [PLAIN_RULE, PAPER_RULE, PLAIN_RULE]


def test_a_chain_of_something_else_is_found_out() -> None:
    """The helper of these tests sees a tenth of a difference."""
    mx.random.seed(1)
    text = text_of(toy_generation(Speculative(PLAIN), tokens=TOKENS))
    other = [[0.6, 0.2, 0.1, 0.1], *TARGET[1:]]
    with pytest.raises(AssertionError, match="after 0"):
        is_chain_of(text, other)
