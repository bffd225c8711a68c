"""Where a rank touches mlx_lm, beside the hooks of every engine. Here a hook that does not fit ends the rank."""

import functools
import importlib
import traceback
from collections.abc import Callable
from typing import Any

from draftd.engine.exits import EngineError, leave
from draftd.engine.expectations import UnfitError, expect, model_provider
from draftd.engine.group.control import Control
from draftd.engine.records import describe
from draftd.protocol import EXIT_FAILED, EXIT_GENERATION_DIED


def place(rank: int, control: Control) -> Callable[[], None]:
    """Have mlx_lm be a rank: it loads its part of the target model, and the first one the draft model.

    What is returned has it lead or follow. That is to be called once the hooks of every engine are placed, which
    look at what mlx_lm does by itself. Raise EngineError.
    """
    try:
        server: Any = importlib.import_module("mlx_lm.server")
        _place_loading(server, rank)
        return _serving(server, rank, control)
    except UnfitError as error:
        raise EngineError(EXIT_FAILED, f"this mlx_lm cannot be one of several ranks: {error}") from error


def _place_loading(server: Any, rank: int) -> None:
    provider = model_provider(server)
    load = expect(provider, "_load", "model_path", "adapter_path", "draft_model_path", caller="load")
    load_draft = expect(server, "load")
    sharded_load = expect(server, "sharded_load", "repo", "pipeline_group", "tensor_group")
    if "sharded_load" not in load.__code__.co_names:
        raise UnfitError("mlx_lm.server.ModelProvider._load does not use sharded_load")
    from draftd.engine.group.splitting import checked

    @functools.wraps(load)
    def load_part(
        self: Any, model_path: str, adapter_path: str | None = None, draft_model_path: str | None = None
    ) -> None:
        load(self, model_path, adapter_path, None)
        if draft_model_path is not None and rank == 0:
            self.draft_model, _ = load_draft(draft_model_path)
        self.model_key = (model_path, adapter_path, draft_model_path)
        self.is_batchable = False  # all is served by our own loop, which is what the other ranks follow

    provider._load = load_part
    server.sharded_load = checked(sharded_load)


def _serving(server: Any, rank: int, control: Control) -> Callable[[], None]:
    generator = expect(server, "ResponseGenerator", caller="run")
    expect(generator, "_generate", caller="_run_generate")
    expect(generator, "_next_request", "timeout")
    if "_is_distributed" not in generator._share_request.__code__.co_names:
        raise UnfitError("mlx_lm.server.ResponseGenerator._share_request does not look at _is_distributed")

    def place_serving() -> None:
        generate, next_request = generator._generate, generator._next_request
        from draftd.engine.group.lead import Leader, lead

        leader = Leader(control.wake_others)

        @functools.wraps(generate)
        def generate_leading(self: Any) -> None:
            self._is_distributed = False  # mlx_lm's own way to share requests is not taken
            generate(self)

        @functools.wraps(next_request)
        def next_or_idle(self: Any, timeout: float | None = None) -> Any:
            request = next_request(self, timeout)
            if request is None and timeout is not None:
                leader.idle()
            return request

        if rank == 0:
            lead(leader)
            generator._generate, generator._next_request = generate_leading, next_or_idle
        else:
            generator._generate = functools.partialmethod(_follow, control)

    return place_serving


def _follow(generator: Any, control: Control) -> None:
    from draftd.engine.group.follow import follow

    try:
        generator.model_provider.load_default()
        follow(generator.model_provider.model, control.until_woken)
    except Exception as error:
        traceback.print_exc()
        leave(EXIT_GENERATION_DIED, f"the thread that follows the first rank died: {describe(error)}")
