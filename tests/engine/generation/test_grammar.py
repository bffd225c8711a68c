"""Under a grammar: nothing comes out that it forbids, and what it allows comes as if there were no drafts."""

from collections.abc import Sequence
from contextlib import closing
from itertools import accumulate, product, takewhile
from typing import Any

import mlx.core as mx
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from draftd.engine.generation.acceptance import AcceptanceCount, Tally
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.choices import ALONE, REVIEW, Choice
from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.generation.rounds import MAX_FORCED
from draftd.engine.generation.sampling import Greedy, Rule, Seeded, Shape, Speculative
from draftd.protocol import GRAMMAR_DRAFTER, LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.chance import chi_square, most_by_chance
from tests.engine.generation.toys import DRAFT, SCRIPTS, TARGET, Scripted, Table, toy_generation

LETTERS = "abc"
END = 3
TURNS = "start: (/[ab]/ /[bc]/)*"  # a or b, then b or c, and again
WITH_FORCED = 'start: (/[ab]/ "cac" /[bc]/)*'
PROMPT = (0, 1, 2)
by_source = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


class Letters:
    """A tokenizer of a token for each letter, and one for the end."""

    eos_token_id, bos_token_id, tokens = END, None, [*map(str.encode, LETTERS), b"<end>"]
    special_token_ids = (END,)

    def __call__(self, text: str) -> list[int]:
        return [LETTERS.index(letter) for letter in text]


TOKENIZER = LLTokenizer(TokenizerWrapper(Letters()), n_vocab=len(TARGET))


def matcher(lark: str) -> LLMatcher:
    made = LLMatcher(TOKENIZER, lark)
    assert not made.is_error(), made.get_error()
    return made


def grammar(lark: str, *, drafts: bool = True) -> Grammar:
    return Grammar(matcher(lark), len(TARGET), [END], drafts=drafts)


def answer(
    rule: Rule,
    script: Sequence[Choice],
    lark: str,
    *,
    tokens: int = 60,
    target: Table = TARGET,
    draft: Table = DRAFT,
    drafts: bool = True,
) -> list[int]:
    """Return an answer up to its end."""
    generation = toy_generation(rule, script, tokens=tokens, prompt=PROMPT, target=target, draft=draft)
    generation.grammar = grammar(lark, drafts=drafts)
    with closing(generation.generate()) as given:
        return list(takewhile(lambda token: token != END, (each.token for each in given)))


def never_ending(table: Table) -> Table:
    """Return a table of the same odds without an end."""
    return [[*(share / (1 - row[END]) for share in row[:END]), 0.0] for row in table]


# --- the grammar alone --------------------------------------------------------------------------------------


def test_what_may_follow_is_masked_at_each_place_of_a_draft() -> None:
    made = grammar(TURNS)
    made.take(0)
    rows = made.mask(mx.zeros((3, 4)), [1, 0])
    allowed: Any = (rows == 0).tolist()
    assert allowed == [[False, True, True, False], [True, True, False, True], [False, True, True, False]]
    last: Any = (made.mask(mx.zeros((1, 4)), [1, 0]) == 0).tolist()
    assert last == allowed[2:]
    made.take(2)  # the draft has left nothing behind
    assert not made.complete


def test_as_much_of_a_draft_is_allowed_as_may_follow() -> None:
    made = grammar(TURNS)
    assert made.allowed([0, 2, 1, 1]) == [0, 2, 1, 1]
    assert made.allowed([0, 2, 2, 1]) == [0, 2]
    assert made.allowed([2]) == []
    assert made.allowed([0, 1, END, 0]) == [0, 1]


def test_what_is_forced_is_proposed_up_to_a_limit_and_only_if_it_may_draft() -> None:
    made = grammar(WITH_FORCED)
    assert made.forced(9) == []
    made.take(0)
    assert made.forced(9) == [2, 0, 2]
    assert made.forced(2) == [2, 0]
    assert grammar('start: "abc"', drafts=False).forced(9) == []


def test_what_is_forced_is_computed_once_for_each_token() -> None:
    class Counting:
        asked = 0

        def __init__(self, of: LLMatcher) -> None:
            self._of = of

        def __getattr__(self, name: str) -> Any:
            self.asked += name == "compute_ff_tokens"
            return getattr(self._of, name)

    counting: Any = Counting(matcher(WITH_FORCED))
    made = Grammar(counting, len(TARGET), [END])
    for token, forced in ((0, [2, 0, 2]), (2, [0, 2]), (0, [2])):
        made.take(token)
        assert made.forced(9) == made.forced(9) == forced
    assert counting.asked == 3


def test_a_token_that_may_not_follow_is_an_error() -> None:
    made = grammar('start: "ab"')
    made.take(0)
    with pytest.raises(ValueError, match="the grammar has failed"):
        made.take(0)


# --- the loop -----------------------------------------------------------------------------------------------


@pytest.mark.fault(213)
@by_source
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("start", range(4, 14))
def test_what_is_forced_is_read_in_no_pass_in_the_middle_of_which_layers_are_quantized(
    script: list[Choice], start: int, crowded: bool
) -> None:
    generation = toy_generation(Greedy(), script, tokens=20, prompt=PROMPT)
    generation.grammar = grammar(f'start: "{"abc" * 6}"')
    generation.target.quantization = Quantization(8, 64, start)
    generation.company.size = 1 + crowded
    list(generation.generate())
    target: Any = generation.target._model
    ends = list(accumulate(target.passes))
    assert start in ends
    assert len(ends) < 14, "the rest is drafted"


@by_source
@pytest.mark.parametrize("lark", [TURNS, WITH_FORCED])
@pytest.mark.parametrize("rule", [Greedy(), Seeded(Shape(1.0), 7)], ids=["greedy", "seeded"])
def test_the_text_is_that_of_no_drafting(script: list[Choice], lark: str, rule: Rule) -> None:
    target, draft = never_ending(TARGET), never_ending(DRAFT)
    alone = answer(rule, SCRIPTS["alone"], lark, target=target, draft=draft, drafts=False)
    assert len(alone) == 60
    assert answer(rule, script, lark, target=target, draft=draft) == alone


@by_source
@pytest.mark.parametrize("lark", [TURNS, WITH_FORCED])
def test_tokens_are_distributed_as_the_target_models_own_given_the_grammar(
    script: list[Choice], lark: str
) -> None:
    mx.random.seed(3)
    target = never_ending(TARGET)
    text = answer(
        Speculative(Shape(1.0)), script, lark, tokens=2000, target=target, draft=never_ending(DRAFT)
    )
    steps = ("ab", "c", "a", "c", "bc") if lark is WITH_FORCED else ("ab", "bc")
    for place, last in product(range(len(steps)), range(END)):
        following = text[place :: len(steps)]
        before = [PROMPT[-1], *text][place :: len(steps)]
        drawn = [token for previous, token in zip(before, following, strict=False) if previous == last]
        weights = [
            share * (LETTERS[token : token + 1] in steps[place])
            for token, share in enumerate(target[last][:END])
        ]
        if drawn:
            expected = [weight / sum(weights) for weight in weights]
            freedom = sum(share > 0 for share in expected) - 1
            assert chi_square(drawn, expected) < most_by_chance(freedom), (place, last)


@by_source
def test_an_answer_that_is_complete_ends_without_another_pass(script: list[Choice]) -> None:
    generation = toy_generation(Greedy(), script, tokens=60, prompt=PROMPT)
    generation.grammar = grammar('start: "ab" /[bc]/')
    tokens = list(generation.generate())
    assert [token.token for token in tokens] == [0, 1, 2, END]
    by_model = tokens[2].source == MODEL_DRAFTER
    # The last letter was drawn in the pass over "ab", or verified in it.
    assert generation.target.position == len(PROMPT) + 2 + by_model
    assert tokens[-1].source == ALONE
    assert by_model or tokens[-1].logprobs()[END].item() == 0


def test_what_is_forced_costs_one_pass_and_is_counted_as_the_grammars() -> None:
    generation = toy_generation(Greedy(), tokens=200, prompt=PROMPT)
    generation.grammar = grammar('start: "' + "abc" * 33 + '"')
    tokens = list(generation.generate())
    assert len(tokens) == 100
    assert [token.drafter for token in tokens[:MAX_FORCED]] == [GRAMMAR_DRAFTER] * MAX_FORCED
    assert tokens[0].proposed == MAX_FORCED
    rounds = [token for token in tokens if token.source == ALONE]
    assert len(rounds) == 2  # after 64 of them, and after the rest: the end


def test_the_draft_model_goes_on_from_what_is_forced_in_one_round() -> None:
    script = [Choice(MODEL_DRAFTER, 2)]
    generation = toy_generation(Greedy(), script, tokens=200, prompt=PROMPT, target=TARGET, draft=TARGET)
    generation.grammar = grammar('start: ("abc" /[ab]/ /[bc]/){3}')
    tokens = list(generation.generate())
    by_both = [GRAMMAR_DRAFTER] * 2 + [MODEL_DRAFTER] * 2 + [ALONE]
    assert [token.source for token in tokens] == [GRAMMAR_DRAFTER, *by_both * 3]
    assert isinstance(generation.policy, Scripted)
    assert not generation.policy.taken  # how long such a round takes says nothing of others
    judged = [one for one in generation.policy.judgements if one[0] == MODEL_DRAFTER]
    assert [(proposed, kept) for _, _, proposed, kept in judged] == [(2, 2)] * 3
    count = AcceptanceCount(None, "greedy")
    for token in tokens:
        count.observe(token.drafter, token.proposed, drafted=token.source != ALONE)
    assert (count.rounds, count.accepted, count.alone, count.truncated_rounds) == (6, 13, 0, 0)
    assert count.drafters[GRAMMAR_DRAFTER] == Tally(3, 7, 7)
    assert count.drafters[MODEL_DRAFTER] == Tally(3, 6, 6)


def test_the_policy_learns_nothing_of_what_is_forced() -> None:
    generation = toy_generation(Greedy(), tokens=40, prompt=PROMPT)
    generation.grammar = grammar(WITH_FORCED)
    list(generation.generate())
    assert isinstance(generation.policy, Scripted)
    assert {choice.source for choice, _ in generation.policy.taken} == {ALONE}


def test_a_review_compares_both_models_by_what_the_grammar_allows() -> None:
    script = [*[Choice(ALONE)] * 6, Choice(REVIEW)]
    rule = Speculative(Shape(1.0))
    generation = toy_generation(rule, script, tokens=40, prompt=PROMPT, target=TARGET, draft=TARGET)
    generation.grammar = grammar("start: /[ab]/+")
    list(generation.generate())
    assert isinstance(generation.policy, Scripted)
    assert generation.policy.shares
    assert generation.policy.shares == pytest.approx([1.0] * len(generation.policy.shares))


def test_a_lookup_is_cut_where_the_grammar_forbids_it() -> None:
    generation = toy_generation(
        Greedy(), [Choice(LOOKUP_DRAFTER, 4)], tokens=20, prompt=(0, 1, 2, 0, 1, 2, 0, 1, 2)
    )
    generation.grammar = grammar("start: /[a]/ (/[bc]/ /[a]/)*")
    list(generation.generate())
    assert isinstance(generation.policy, Scripted)
    assert all(choice.length <= 2 for choice, _ in generation.policy.taken if choice.source == LOOKUP_DRAFTER)


def test_a_draft_that_ends_the_answer_is_verified_like_any_other() -> None:
    """A draft model that always ends, and a target model that ends half the time: the shares are the target's."""
    ends, halves = [[0.0, 0.0, 0.0, 1.0]] * 4, [[0.25, 0.25, 0.0, 0.5]] * 4
    mx.random.seed(5)
    lengths = [
        len(
            answer(
                Speculative(Shape(1.0)),
                [Choice(MODEL_DRAFTER, 2)],
                "start: /[ab]*/",
                target=halves,
                draft=ends,
            )
        )
        for _ in range(400)
    ]
    drawn = [min(length, 4) for length in lengths]
    assert chi_square(drawn, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]) < most_by_chance(4)
