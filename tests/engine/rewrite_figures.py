"""What lookups give where a file is written again: `python -m tests.engine.rewrite_figures`. Takes seconds.

Counted, not timed, so a busy machine changes nothing. The target model is one that writes exactly the file with one
line changed, and what passes cost is given: so this is what lookup and policy are good for by themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

from draftd.engine.generation.choices import Choice, Situation
from draftd.engine.generation.drafters.lookup import AnswerStore, LookupDrafter
from draftd.engine.generation.policy import LENGTHS, DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER
from tests.engine import served
from tests.engine.generation.worlds import SINGLE, slope, stairs
from tests.engine.texts import FILE

SIXTY_LINES = "\n".join(inspect.getsource(served).splitlines()[:60])
FILES = {
    "60 lines of Python, a name changed": (SIXTY_LINES, SIXTY_LINES.replace("self", "this", 1)),
    "60 lines much alike, a name changed": (FILE, FILE.replace("step_7", "first_step")),
}
ROWS = {"3 %": slope(0.03), "15 %": slope(0.15), "30 %": slope(0.3), "100 %": slope(1.0), "stairs": stairs}


@dataclass(frozen=True)
class Copied:
    """`speed` is that of no drafting times so much."""

    tokens_per_pass: float
    speed: float


def copied(before: str, after: str, rows: Callable[[int], float], policy: DraftPolicy) -> Copied:
    """Write a file again, which stands in the prompt, when a pass over so many rows costs so much."""
    numbers: dict[str, int] = {}
    prompt, answer = (
        [numbers.setdefault(word, len(numbers)) for word in re.findall(r"\w+|\s+|.", text)]
        for text in (before, f"Here it is:\n{after}")
    )
    lookup = LookupDrafter(prompt, AnswerStore())
    policy.begin()
    made, passes, seconds = 0, 0, 0.0
    while made < len(answer):
        match = lookup.find()
        found = match.draft(LENGTHS[-1]) if match else []
        now = Situation(
            len(prompt) + made, len(answer) - made, match=match.length if match else 0, lookup=len(found)
        )
        choice = policy.choose(now)
        right = [one == other for one, other in zip(found, answer[made:], strict=False)]
        kept = ([*right, False]).index(False)
        length = choice.length or 1
        if found:
            policy.judged(LOOKUP_DRAFTER, now.match, length, min(kept, length))
        took = SINGLE * rows(choice.length + 1)
        policy.took(Choice(choice.source, choice.length), now.depth, took)
        came = answer[made : made + 1 + min(kept, choice.length)]
        lookup.extend(came)
        made, passes, seconds = made + len(came), passes + 1, seconds + took
    return Copied(made / passes, made * SINGLE / seconds)


def main() -> None:
    """Print a table: as a worker begins, and when it has written the file before."""
    print(f"| each further row of a pass costs | {' | '.join(FILES)} |")
    print("|---" * (len(FILES) + 1) + "|")
    for name, rows in ROWS.items():
        cells = []
        for before, after in FILES.values():
            policy = DraftPolicy()
            runs = [copied(before, after, rows, policy) for _ in range(3)]
            cells.append(", then ".join(f"{run.tokens_per_pass:.1f}, {run.speed:.2f}x" for run in runs[::2]))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
