"""What mlx_lm calls in place of its `speculative_generate_step`: the one wrapper around it.

Each request goes through these steps:

1. How it drafts is decided: by which rule, in whose loop, and how long the drafts are. The paper's rule and an
   adaptive draft length need our own loop, which must know what tokens are drawn from; penalties, a logit bias
   (`logits_processors`), XTC and a quantized cache are left to mlx_lm's loop. Greedy decoding draws nothing: there
   both rules are one, and with a fixed length mlx_lm's loop does.
2. Its tokens come, and are counted. Each call of a model reports progress.
3. Whatever ends it, the loop is closed first: this rolls back the prompt cache, which mlx_lm.server stores as
   soon as our generator has ended.
4. If nothing has drafted like this before, the passes are timed, and the request ends later by that time. Until its
   costs are known, an adaptive length is a short fixed one.
5. The count is reported, with the costs.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from draftd.engine.generation.acceptance import AcceptanceCount, Step, Steps
from draftd.engine.generation.calibration import Calibration, measure
from draftd.engine.generation.estimates import CostModel
from draftd.engine.generation.loop import generate
from draftd.engine.generation.policy import AdaptiveLength, DraftPolicy, FixedLength
from draftd.engine.generation.sampling import DISTRIBUTION_ATTRIBUTE, Distribution, Greedy
from draftd.engine.progress import TickingModel
from draftd.protocol import PLAIN_RULE

FIRST_LENGTH = (
    3  # of drafts whose length should adapt, where it cannot: in mlx_lm's loop, and before costs are known
)
MAX_KNOWN = 64  # ways of drafting that are remembered: a client may ask for another temperature each time

_MODELS = ("prompt", "model", "draft_model", "stream")
_OURS = ("max_tokens", "prompt_cache", "prefill_step_size")
_HEEDED = {*_MODELS, *_OURS, "num_draft_tokens", "sampler"}  # the sampler by its distribution
_WITHOUT_EFFECT = {"kv_group_size", "quantized_kv_start"}  # unless there are kv_bits

Report = Callable[[AcceptanceCount, CostModel | None], None]


@dataclass(frozen=True, slots=True)
class Drafting:
    """How a request drafts.

    `distribution` is what tokens are drawn from; None: mlx_lm's own loop is used. `draft_length` is None where it
    may change each round. `calibration` is what its costs are measured by; None: nothing is drafted.
    """

    distribution: Distribution | Greedy | None
    policy: DraftPolicy
    draft_length: int | None
    calibration: Calibration | None

    @property
    def rule(self) -> str:
        """The rule that keeps draft tokens."""
        return PLAIN_RULE if self.distribution is None else self.distribution.rule


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier requests that drafted alike have left: the costs, None if measuring them failed, and the
    policy.
    """

    cost_model: CostModel | None
    policy: DraftPolicy


class SpeculativeStep:
    """A function for the same arguments as mlx_lm's `speculative_generate_step`, which it may call.

    What is None or false is left out: `tick` is called before each call of a model, `report` gets the count of
    each request and what is known of its costs, `own_loop` says whether our loop may be used. `wants_adaptive`
    says whether the present request's draft length is to adapt, up to `num_draft_tokens`. `on_error` gets what
    went wrong in measuring costs. Counting and our loop need the names of mlx_lm's parameters: `hooks` checks
    them.
    """

    def __init__(
        self,
        step: Callable[..., Steps],
        *,
        tick: Callable[[], None] | None,
        report: Report | None,
        own_loop: bool,
        wants_adaptive: Callable[[], bool],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._step = step
        self._signature = inspect.signature(step)
        self._tick = tick
        self._report = report
        self._own_loop = own_loop
        self._wants_adaptive = wants_adaptive
        self._on_error = on_error
        self._known: dict[Calibration, Known] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Steps:
        """Yield the steps of one request."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._tick is not None:
            for name in ("model", "draft_model"):
                bound.arguments[name] = TickingModel(bound.arguments[name], self._tick)
        if self._report is None:
            return self._step(*bound.args, **bound.kwargs)
        return self._counted(bound, self._report)

    def _counted(self, bound: inspect.BoundArguments, report: Report) -> Steps:
        """Yield the steps. One that cannot be counted ends the counting, not the request: nothing is reported."""
        drafting = self._decide(bound.arguments)
        count = AcceptanceCount(drafting.draft_length, bound.arguments["max_tokens"], drafting.rule)
        countable = True
        steps = self._steps(drafting, bound)
        try:
            for step in steps:
                countable = countable and _observed(count, step)
                yield step
        finally:
            try:
                steps.close()
            finally:
                cost_model = self._learn(drafting, bound.arguments)
                if countable:
                    report(count, cost_model)

    def _decide(self, arguments: Mapping[str, Any]) -> Drafting:
        length = max(0, arguments["num_draft_tokens"])
        distribution = distribution_of(arguments) if self._own_loop else None
        adaptive = self._wants_adaptive()
        if adaptive and distribution is not None:
            calibration = Calibration.adaptive(distribution, length)
            known = self._known.get(calibration)
            policy = known.policy if known else FixedLength(min(FIRST_LENGTH, length))
            return Drafting(distribution, policy, None, calibration)
        if adaptive:
            length = min(FIRST_LENGTH, length)
        if distribution is not None and distribution.rule == PLAIN_RULE:
            distribution = None
        return Drafting(
            distribution, FixedLength(length), length, Calibration.fixed(length) if length else None
        )

    def _steps(self, drafting: Drafting, bound: inspect.BoundArguments) -> Steps:
        if drafting.distribution is None:
            bound.arguments["num_draft_tokens"] = drafting.draft_length
            return self._step(*bound.args, **bound.kwargs)
        models = (bound.arguments[name] for name in _MODELS)
        others = {name: bound.arguments[name] for name in _OURS}
        return generate(drafting.distribution, drafting.policy, *models, **others)

    def _learn(self, drafting: Drafting, arguments: Mapping[str, Any]) -> CostModel | None:
        """Return the costs, which are measured if nothing has drafted like this before; None if they are not known.

        A measurement that fails is not tried again.
        """
        calibration = drafting.calibration
        if calibration is None:
            return None
        if calibration not in self._known:
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[calibration] = self._measured(calibration, drafting, arguments)
        return self._known[calibration].cost_model

    def _measured(self, calibration: Calibration, drafting: Drafting, arguments: Mapping[str, Any]) -> Known:
        try:
            with mx.stream(arguments["stream"]):
                cost_model = measure(calibration, arguments["model"], arguments["draft_model"])
        except Exception as error:
            self._on_error(error)
            return Known(None, drafting.policy)
        adaptive = drafting.draft_length is None
        return Known(cost_model, AdaptiveLength(cost_model) if adaptive else drafting.policy)


def distribution_of(arguments: Mapping[str, Any]) -> Distribution | Greedy | None:
    """Return what tokens are drawn from, for the arguments of mlx_lm's `speculative_generate_step`, by name.

    None where something else shapes it, where nothing is to be drafted, or where an argument is new to us.
    """
    drafts = arguments["num_draft_tokens"] > 0 and arguments["max_tokens"] > 0
    unheeded = arguments.keys() - _HEEDED - _WITHOUT_EFFECT
    if not drafts or any(arguments[name] for name in unheeded):
        return None
    return getattr(arguments["sampler"], DISTRIBUTION_ATTRIBUTE, None)


def _observed(count: AcceptanceCount, step: Step) -> bool:
    try:
        count.observe(bool(step[2]), getattr(step, "proposed", None))
    except Exception:
        return False
    return True
