"""What is known of the loaded models: how their caches are rolled back, and what requests have taught."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.ragged_trial import is_exact
from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache
from draftd.engine.generation.caches.sizes import CacheSize
from draftd.engine.generation.drafters.lookup import AnswerStore
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.round_times import CostModel
from draftd.engine.group.lead import caches_of

# Ways of sampling, and profiles, that are remembered: a client may ask for another temperature each time.
MAX_KNOWN = 64


class LoadedModels:
    """The target model and the draft model, None without one; `say` is told what keeps them from drafting."""

    def __init__(self, target: Any, draft: Any | None, say: Callable[[str], None]) -> None:
        self.target, self.draft = target, draft
        self.target_caches = caches_of(target)
        self.draft_caches = ModelCaches(draft) if draft is not None else None
        # By whether it is the draft model, and how it is quantized.
        self._exact: dict[tuple[bool, Quantization | None], bool] = {}
        self._size: CacheSize | None = None
        self._policies: dict[tuple[Any, ...], DraftPolicy] = {}
        self._costs: dict[tuple[bool, bool], CostModel] = {}
        self._answers: dict[str | None, AnswerStore] = {}
        refusals = {
            caches.refusal for caches in (self.target_caches, self.draft_caches) if caches and caches.refusal
        }
        for refusal in sorted(refusals):
            say(refusal)

    @property
    def can_draft(self) -> bool:
        """Whether what was read of refused tokens can be taken back, at least in the target model."""
        return self.target_caches.refusal is None

    @property
    def has_drafter(self) -> bool:
        """Whether there is a draft model that can be used."""
        return self.can_draft and self.draft_caches is not None and self.draft_caches.refusal is None

    def reads_rows(self, *, draft: bool = False, quantization: Quantization | None = None) -> bool:
        """Whether several sequences can be read in one pass of a model. Found out when it is asked for first."""
        model, caches = (self.draft, self.draft_caches) if draft else (self.target, self.target_caches)
        key = draft, quantization
        if key not in self._exact:
            self._exact[key] = (
                caches is not None
                and not caches.why_alone
                and not caches.rereads
                and is_exact(model, caches.make, quantization)
            )
        return self._exact[key]

    @property
    def cache_size(self) -> CacheSize:
        """How much memory the caches of a request take."""
        if self._size is None:
            self._size = CacheSize.of(self.target, self.target_caches.make)
            if self.draft_caches is not None:
                self._size += CacheSize.of(self.draft, self.draft_caches.make)
        return self._size

    def policy(
        self,
        way: tuple[Any, ...],
        *,
        fixed: int | None,
        draws: bool,
        grammar: bool = False,
        in_use: Iterable[DraftPolicy] = (),
    ) -> DraftPolicy:
        """Return the policy of all requests that sample in the same way.

        `draws` tells whether they do at all, and `grammar` whether one is asked before each token: both take time.
        For a request beside another one it is a policy that has learnt the same, and teaches it, but does not
        count the other one's tokens as its own.
        """
        key = (*way, fixed)
        if key not in self._policies:
            _forget_oldest(self._policies)
            costs = self._costs.setdefault((draws, grammar), CostModel())
            self._policies[key] = DraftPolicy(costs, fixed)
        policy = self._policies[key]
        return replace(policy) if any(used is policy for used in in_use) else policy

    def answers(self, profile: str | None) -> AnswerStore:
        """Return the past answers of a profile."""
        if profile not in self._answers:
            _forget_oldest(self._answers)
            self._answers[profile] = AnswerStore()
        return self._answers[profile]

    def adopt(self, layers: Sequence[Any], cached: int) -> tuple[SequenceCache, SequenceCache | None]:
        """Return the caches of a sequence, for layers of which the target model's have read `cached` tokens.

        A draft model may have read fewer, and reads the rest when it is asked. No layers are a new sequence.
        """
        split = self.target_caches.number
        target = (
            self.target_caches.adopt(list(layers[:split]), cached) if layers else self.target_caches.make()
        )
        if self.draft_caches is None:
            return target, None
        drafts = list(layers[split:])
        read = read_by(drafts)
        return target, self.draft_caches.adopt(drafts, read) if read else self.draft_caches.make()


def read_by(layers: Sequence[Any]) -> int:
    """Return how many tokens the layers of one model have read; 0 for none."""
    offsets = (getattr(leaf, "offset", None) for leaf in leaves(list(layers)))
    return next((offset for offset in offsets if isinstance(offset, int)), 0)


def _forget_oldest(known: dict[Any, Any]) -> None:
    while len(known) >= MAX_KNOWN:
        del known[next(iter(known))]
