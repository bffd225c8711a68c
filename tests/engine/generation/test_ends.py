"""Whatever ends a generation leaves both caches in order: a client, a check, an error."""

from collections.abc import Callable
from itertools import islice

import pytest

from draftd.engine.generation.choices import ALONE, Choice
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.policy import DraftPolicy
from tests.engine.architectures.models import make, noisy
from tests.engine.generation.pairs import ALL_SCRIPTS, Models
from tests.engine.generation.toys import REVIEWED, Scripted, by_model, text_of


def in_order(models: Models, generation: Generation) -> None:
    """Go on with the same caches and more text, as the next turn of a conversation does."""
    assert generation.draft
    readers = generation.target, generation.draft.reader
    for reader in readers:
        assert reader.position <= len(generation.text)
    prompt = [*generation.text, 11, 12]
    policy = Scripted(*by_model(3), Choice(ALONE))
    onward = models.generation(prompt, policy, tokens=8, readers=readers, lookup=False)
    assert text_of(onward) == prompt + models.alone(prompt, 8)


@pytest.fixture(scope="module")
def small() -> Models:
    return Models(make("llama"), noisy("llama"), 256)


@ALL_SCRIPTS
def test_closed_after_any_token_it_leaves_both_caches_in_order(small: Models, script: list[Choice]) -> None:
    prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    for place in range(1, 17):
        generation = small.generation(prompt, Scripted(*script), tokens=40)
        tokens = generation.generate()
        assert len(list(islice(tokens, place))) == place
        tokens.close()
        assert len(generation.text) == len(prompt) + place
        in_order(small, generation)


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_next"])
def test_closed_inside_a_round_it_leaves_windows_and_states_in_order(name: str) -> None:
    pair = Models(make(name), noisy(name), 256)
    prompt = [n % 200 + 4 for n in range(0, 500, 7)]
    for place in (1, 2, 3, 4, 9):
        generation = pair.generation(prompt, Scripted(*by_model(5)), tokens=40, readers=pair.readers(24))
        tokens = generation.generate()
        assert len(list(islice(tokens, place))) == place
        tokens.close()
        in_order(pair, generation)


class GoneError(Exception):
    pass


def leaving_after(calls: int) -> Callable[[int], None]:
    left = iter(range(calls))

    def check(read: int) -> None:
        assert read > 0
        if next(left, None) is None:
            raise GoneError

    return check


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_check_that_raises_ends_the_reading_of_the_prompt(small: Models, calls: int) -> None:
    prompt = list(range(5, 60))
    readers = small.readers(step=10)
    generation = small.generation(prompt, DraftPolicy(), readers=readers, check=leaving_after(calls))
    with pytest.raises(GoneError):
        text_of(generation)
    assert readers[0].position == 10 * (calls + 1), "within a step"
    in_order(small, generation)


@pytest.mark.parametrize(
    "script", [by_model(2), [Choice(ALONE)] * 3 + [REVIEWED]], ids=["a draft", "a review"]
)
def test_it_ends_the_reading_of_the_draft_model_too(small: Models, script: list[Choice]) -> None:
    prompt = list(range(5, 60))
    readers = small.readers(step=10)
    of_target = 6  # steps in which the target model reads the prompt
    generation = small.generation(
        prompt, Scripted(*script), readers=readers, lookup=False, check=leaving_after(of_target + 1)
    )
    with pytest.raises(GoneError):
        text_of(generation)
    assert readers[1].position == 20
    in_order(small, generation)


def test_an_error_of_the_draft_model_leaves_the_target_model_in_order(
    small: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = small.generation(list(range(5, 20)), Scripted(*by_model(3)), lookup=False)
    tokens = generation.generate()
    next(tokens)
    assert generation.draft
    monkeypatch.setattr(generation.draft.reader, "_model", None)
    with pytest.raises(TypeError):
        list(tokens)
    monkeypatch.undo()
    in_order(small, generation)
