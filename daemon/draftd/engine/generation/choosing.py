"""Tokens are drawn, and drafts verified, for several requests at once: what is asked alike is done in one go.

Alike are rows of one pass whose requests have the same rule. A request with penalties, a grammar, a seed or XTC has
rows of its own.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import mlx.core as mx

from draftd.engine.generation.parts import Draw, Verified, Verify
from draftd.engine.generation.rows import Drawn, Fetched, row_of_each, side_by_side

Key = TypeVar("Key", bound=Hashable)
Asked = TypeVar("Asked", Draw, Verify)


def draw(asked: Mapping[Key, Draw]) -> dict[Key, Drawn]:
    """Draw tokens. The device has begun with them."""
    answers: dict[Key, Drawn] = {}
    begun = []
    for keys, parts in _alike(asked):
        rule, position = parts[0].rule, parts[0].position
        logits, _ = side_by_side([part.logits for part in parts], 1)
        shaped = rule.shape(logits[:, 0], position)
        tokens = Fetched(rule.draw(shaped, position))
        begun.append(tokens.array)
        answers.update((key, Drawn(tokens, place, shaped)) for place, key in enumerate(keys))
    mx.async_eval(begun)  # type: ignore[no-untyped-call]
    return answers


class Verification(Generic[Key]):
    """What was asked of some drafts, still being computed: `arrays` are to be waited for."""

    def __init__(self, asked: Mapping[Key, Verify]) -> None:
        self._begun = [(keys, parts, Fetched(_judged(parts))) for keys, parts in _alike(asked)]
        self.arrays = [fetched.array for _, _, fetched in self._begun]

    def answers(self) -> dict[Key, Verified]:
        """Return what came out."""
        answers: dict[Key, Verified] = {}
        for keys, _, fetched in self._begun:
            for key, (kept, after, *drafted) in zip(keys, fetched.numbers, strict=True):
                answers[key] = Verified(drafted[:kept], after)
        return answers


def _judged(parts: Sequence[Verify]) -> mx.array:
    """Return for each draft how many are kept, the token after them, and its tokens: (drafts, 2 + the most)."""
    rule, counts = parts[0].rule, [part.logits.count - 1 for part in parts]
    longest = max(counts)
    logits, lines = side_by_side([part.logits for part in parts], longest + 1)
    drafted, q = lines[:, 1:], None
    if rule.weighs_drafts and parts[0].drafts:
        places = range(longest)
        q = mx.stack(
            [row_of_each([part.drafts[min(n, len(part.drafts) - 1)] for part in parts]) for n in places], 1
        )
    p = rule.shape(logits, parts[0].position)
    kept, after = rule.verify(p, q, drafted, mx.array(counts))
    columns = (kept[:, None], after[:, None], drafted)
    return mx.concatenate([numbers.astype(mx.int32) for numbers in columns], axis=1)


def _alike(asked: Mapping[Key, Asked]) -> Iterable[tuple[list[Key], list[Asked]]]:
    """Put those together that are done in one go."""
    if len(asked) == 1:
        return [(list(asked), list(asked.values()))]
    groups: dict[Hashable, tuple[list[Key], list[Asked]]] = {}
    for number, (key, part) in enumerate(asked.items()):
        weighed = isinstance(part, Verify) and part.rule.weighs_drafts and len(part.drafts) > 0
        alike = (id(part.logits.logits), part.rule, weighed) if part.rule.is_shared else number
        keys, parts = groups.setdefault(alike, ([], []))
        keys.append(key)
        parts.append(part)
    return groups.values()
