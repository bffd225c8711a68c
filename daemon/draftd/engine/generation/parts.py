"""What a generation needs done on its way, by whoever drives it.

A generation is a generator. Beside its tokens it yields what it needs and cannot do for itself where several are
at work: a decision, since one draft length has to fit all; a pass of a model, since several are read in one; to
have tokens drawn or a draft verified, since that takes the host as long for one as for all; and to wait for the
device, since that is done once for all. Each of these gets its answer by `send`, see `together`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from draftd.engine.generation.choices import Choice, Situation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rows import Drawn, Rows, Tokens
from draftd.engine.generation.sampling import Rule


@dataclass(slots=True, eq=False)
class Token:
    """One token of an answer. `logits`, one row, are those of the target model at its place, before they were
    shaped.

    `source` drafted it, ALONE means that the target model chose it; `drafter` and `proposed` are those of its
    round.
    """

    token: int
    logits: Rows
    source: str
    drafter: str
    proposed: int

    def logprobs(self) -> mx.array:
        """Return the normalised logits, (vocabulary,). Only where they are asked for: exponentials are dear."""
        # In bfloat16 they would be right to a sixteenth only.
        logits = self.logits.array[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


@dataclass(slots=True, eq=False)
class Deciding:
    """How is it to go on? The answer is a `Decision`.

    `ahead`: the next token is being computed already.
    """

    policy: DraftPolicy
    now: Situation
    ahead: bool


@dataclass(slots=True, eq=False)
class Decision:
    """`goes_on`: without a draft, the token after the next one may be computed ahead. `shared`: the round is one of
    several sequences, and how long it takes tells nothing of this one.
    """

    choice: Choice
    goes_on: bool
    shared: bool = False


@dataclass(slots=True, eq=False)
class Pass:
    """A model is to read tokens. The answer are the logits after each, `Rows`, still being computed.

    `by_draft`: it is the draft model, which may have several passes before one of the target model.
    """

    reader: Reader
    tokens: Tokens
    by_draft: bool = False


@dataclass(slots=True, eq=False)
class Draw:
    """A token is to be drawn from one row of logits. The answer is `Drawn`, which the device has begun with."""

    logits: Rows
    rule: Rule
    position: int


@dataclass(slots=True, eq=False)
class Verify:
    """Drafted tokens are to be verified, once they are computed: `logits` has a row before each of them, and one
    after the last. The answer is `Verified`.

    `drafts` is what each of them was drawn from; nothing, if they were not drawn.
    """

    logits: Rows
    rule: Rule
    position: int
    drafts: Sequence[Drawn | mx.array]


@dataclass(slots=True, eq=False)
class Verified:
    """The drafted tokens that are kept, and the token after them."""

    kept: list[int]
    after: int


@dataclass(slots=True, eq=False)
class Ready:
    """A token is to be computed before it goes on. There is no answer."""

    drawn: Drawn


Part = Deciding | Pass | Draw | Verify | Ready
