"""Attaches a store to mlx_lm's prompt cache, when the models are loaded, and tells it when no request is at work.

mlx_lm's thread asks for requests by `_next_request`: with a time limit where none is at work, and without where one
is. It asks for the first time when its models are there.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from draftd.engine import records, release
from draftd.engine.prompt_cache import TruePromptCache
from draftd.engine.stored_prompts.identity import identity_of
from draftd.engine.stored_prompts.store import Store
from draftd.protocol import STORED_PROMPT, PromptStore


def keeping(next_request: Callable[..., Any], place: PromptStore) -> Callable[..., Any]:
    """Wrap `_next_request` of mlx_lm's ResponseGenerator."""
    attached: list[Store | None] = []

    @wraps(next_request)
    def next_or_save(self: Any, timeout: float | None = None) -> Any:
        if not attached:
            attached.append(_attach(self, place))
        request = next_request(self, timeout)
        if (store := attached[0]) is not None:
            if request is not None:
                store.busy()
            elif timeout is not None:
                store.idle(self.prompt_cache)
        return request

    return next_or_save


def _report(outcome: str) -> None:
    records.report(records.record(STORED_PROMPT, outcome=outcome))


def _attach(generator: Any, place: PromptStore) -> Store | None:
    """Return a store for the models that are loaded; None, with the reason said, where there can be none."""
    provider, cache = generator.model_provider, generator.prompt_cache
    if provider.model_key is None or generator._is_distributed or not isinstance(cache, TruePromptCache):
        return None
    try:
        identity = identity_of(provider.model_key, generator.cli_args)
        store = Store(place, identity, provider.model_key, records.say, _report)
    except Exception as error:
        records.say(f"no prompt caches are stored: {records.describe(error)}")
        return None
    cache.store = store
    release.save_first(partial(store.finish, release.is_hurried))
    return store
