"""What the engine counts and answers, through HTTP, against mlx_lm itself in this process."""

from pathlib import Path
from typing import Any

import mlx_lm
import pytest

from draftd.protocol import DRAFTERS_HEADER, MODEL_DRAFTER
from tests.engine.served import Engine, turn
from tests.ties import may_differ

pytestmark = pytest.mark.real

PROMPTS = [
    turn(q) for q in ("Hello!", "What is draftd?", "What is speculative decoding?", "What is a round?")
]
LENGTHS = [3, 5, 7]
MAX_TOKENS = 50

BY_MODEL = {DRAFTERS_HEADER: MODEL_DRAFTER}


class Reference:
    """The pair in this process: what mlx_lm generates without an engine."""

    def __init__(self, pair: tuple[Path, Path]) -> None:
        self.target, self.tokenizer = mlx_lm.load(str(pair[0]))
        self.draft, _ = mlx_lm.load(str(pair[1]))

    def generate(
        self, prompt: str, draft_length: int, max_tokens: int = MAX_TOKENS
    ) -> list[tuple[int, bool]]:
        """Return each token, and whether it came from the draft."""
        responses = mlx_lm.stream_generate(
            self.target,
            self.tokenizer,
            prompt,
            max_tokens=max_tokens,
            draft_model=self.draft,
            num_draft_tokens=draft_length,
        )
        return [(response.token, response.from_draft) for response in responses]


@pytest.fixture(scope="module")
def reference(pair: tuple[Path, Path]) -> Reference:
    return Reference(pair)


def proposed(from_draft: list[bool], draft_length: int, max_tokens: int) -> int:
    """Return the draft tokens proposed, from the tokens at which rounds open: never the last one of an answer."""
    opening = [n for n in range(len(from_draft)) if n == 0 or not from_draft[n - 1]]
    return sum(min(draft_length, max_tokens - n - 1) for n in opening)


def counts(engine: Engine, prompt: str, draft_length: int, **body: Any) -> tuple[str, dict[str, Any], int]:
    """Return the line for people, the record, and how many tokens the answer is said to have."""
    answer, lines = engine.generation(
        lambda: engine.ask("/v1/completions", BY_MODEL, prompt=prompt, num_draft_tokens=draft_length, **body)
    )
    record = engine.records("generation")[-1]
    human = lines[next(n for n, line in enumerate(lines) if '"generation"' in line) - 1]
    return human, record, answer["usage"]["completion_tokens"]


def check(reference: Reference, engine: Engine, prompt: str, draft_length: int) -> int:
    """Compare both counts of one request; return the number of its tokens."""
    human, record, tokens = counts(engine, prompt, draft_length, max_tokens=MAX_TOKENS)
    expected = [from_draft for _, from_draft in reference.generate(prompt, draft_length)][:tokens]
    expected[MAX_TOKENS - 1 :] = [False] * (len(expected) == MAX_TOKENS)  # mlx_lm drafts it, for nothing
    accepted, offered = sum(expected), proposed(expected, draft_length, MAX_TOKENS)
    assert (record["accepted"], record["proposed"], record["tokens"]) == (accepted, offered, len(expected))
    assert sum(record["accepted_by_position"]) == accepted
    assert sum(record["proposed_by_position"]) == offered
    assert record["draft_length"] == draft_length
    assert human == f"Draft tokens accepted: {accepted}/{offered} ({accepted / offered:.0%})"
    return tokens


@pytest.mark.parametrize("draft_length", LENGTHS)
def test_counts_equal_from_draft(reference: Reference, drafted: Engine, draft_length: int) -> None:
    tokens = [check(reference, drafted, prompt, draft_length) for prompt in PROMPTS]
    assert MAX_TOKENS in tokens, "no answer was ended by max_tokens"
    assert min(tokens) < MAX_TOKENS, "no answer was ended by the end of sequence"


@pytest.mark.parametrize("draft_length", LENGTHS)
def test_a_generation_that_a_stop_text_ends_is_counted(drafted: Engine, draft_length: int) -> None:
    """It ends a little later than the answer: the stop text is found by the thread that sends it."""
    _, record, tokens = counts(drafted, PROMPTS[1], draft_length, max_tokens=2000, stop=" that")
    assert tokens <= record["tokens"] < 2000
    assert record["accepted"] <= record["proposed"]


def test_a_client_that_leaves_is_counted(drafted: Engine) -> None:
    _, lines = drafted.generation(lambda: drafted.endless().close())
    record = drafted.records("generation")[-1]
    assert 0 < record["tokens"] < 10_000
    assert any(line.startswith("Draft tokens accepted: ") for line in lines)


def test_without_drafting_there_is_a_record_and_no_line(drafted: Engine, plain: Engine) -> None:
    text, lines = drafted.generation(lambda: drafted.complete(PROMPTS[0], num_draft_tokens=0, max_tokens=20))
    record = drafted.records("generation")[-1]
    assert (record["rounds"], record["proposed"], record["tokens"]) == (0, 0, 20)
    assert not any("Draft tokens accepted" in line for line in lines)
    assert text == plain.complete(PROMPTS[0], max_tokens=20)


def test_a_record_tells_memory_and_no_text(drafted: Engine) -> None:
    drafted.generation(lambda: drafted.complete(PROMPTS[0], max_tokens=5))
    record = drafted.records("generation")[-1]
    assert record["memory"]["active"] > 0
    assert record["memory"]["peak"] >= record["memory"]["active"]
    numbers = [*record["memory"].values(), *record["accepted_by_position"], *record["proposed_by_position"]]
    numbers += [*record["costs"].values()]
    numbers += [value for value in record.values() if not isinstance(value, list | dict | str)]
    assert all(isinstance(number, int | float) for number in numbers)
    assert [value for value in record.values() if isinstance(value, str)] == ["generation", "plain"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_prompt_again_gives_the_same_text_as_without_a_draft(
    drafted: Engine, plain: Engine, prompt: str
) -> None:
    expected = plain.complete(prompt, max_tokens=MAX_TOKENS)
    for draft_length in (*LENGTHS, 0, 2, 5):
        body = {"max_tokens": MAX_TOKENS, "num_draft_tokens": draft_length}
        if drafted.complete(prompt, **body) != expected:
            assert not may_differ(plain.tokens(prompt, max_tokens=MAX_TOKENS), drafted.tokens(prompt, **body))


def chat(engine: Engine, turns: list[str], **body: Any) -> tuple[list[str], list[int]]:
    """Hold a conversation; return the answers, and how many prompt tokens of each turn were cached."""
    messages: list[dict[str, str]] = []
    cached = []
    for question in turns:
        messages.append({"role": "user", "content": question})
        answer = engine.ask("/v1/chat/completions", messages=messages, max_tokens=30, **body)
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"] or ""})
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    return [message["content"] for message in messages[1::2]], cached


@pytest.mark.parametrize("draft_length", LENGTHS)
def test_later_turns_equal_those_without_a_draft_and_use_the_cache(
    drafted: Engine, plain: Engine, draft_length: int
) -> None:
    turns = ["What is draftd?", "What is a round?", f"What does a draft length of {draft_length} mean?"]
    answers, cached = chat(drafted, turns, num_draft_tokens=draft_length)
    assert answers == chat(plain, turns)[0]
    assert 0 < cached[1] < cached[2]


def test_a_prompt_equal_to_a_cached_sequence(drafted: Engine, plain: Engine) -> None:
    """With max_tokens 1 the key is cut to the prompt, or to the prompt and one token."""
    prompt = turn("What is a draft model?")
    first = [engine.complete(prompt, max_tokens=1) for engine in (plain, drafted)]
    assert first[0] == first[1]
    for engine in (plain, drafted):
        assert [engine.complete(prompt, max_tokens=1) for _ in range(2)] == [first[0]] * 2
        longer = prompt + first[0]
        assert len({engine.complete(longer, max_tokens=8) for _ in range(2)}) == 1
    assert plain.complete(longer, max_tokens=8) == drafted.complete(longer, max_tokens=8)


@pytest.mark.parametrize("drafts", [True, False])
def test_an_answer_that_is_not_streamed_is_told_to_get_on(
    plain: Engine, drafted: Engine, drafts: bool
) -> None:
    engine = drafted if drafts else plain
    before = len(engine.records("progress"))
    tries = 0
    while len(engine.records("progress")) == before:  # there is at most one a second
        assert tries < 500
        tries += 1
        engine.ask("/v1/completions", prompt=PROMPTS[0], max_tokens=20, logprobs=True)
