"""A stand-in for mlx_lm's ResponseGenerator: requests come when a test says, and tokens stay tokens."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx_lm import server

from draftd.engine import request_context
from draftd.engine.prompt_cache import TruePromptCache
from draftd.engine.request_context import RequestContext
from draftd.engine.serving import Serving

VOCABULARY = 256


class Detokenizer:
    last_segment = ""

    def add_token(self, token: int) -> None:
        pass

    def finalize(self) -> None:
        pass


class Tokenizer:
    """Texts end with token 2, unless that is to end none of them."""

    has_tool_calling = has_thinking = False
    tool_parser = None

    def __init__(self, *, ends: bool) -> None:
        self.eos_token_ids = frozenset({2} if ends else ())

    @property
    def detokenizer(self) -> Detokenizer:
        return Detokenizer()

    def encode(self, _: str) -> list[int]:
        return [3]


@dataclass(eq=False)
class Asked:
    """A request, and the queue of its answer. The client leaves after `leaves` tokens or pieces of its prompt."""

    prompt: list[int]
    max_tokens: int = 40
    draft: int = 4
    auto: bool = False
    seed: int | None = None
    temperature: float = 0.0
    leaves: int | None = None
    logit_bias: Any = None
    batchable: bool = False
    ahead: bool = False
    came: list[Any] = field(default_factory=list)
    context: Any = None
    at: list[int] = field(default_factory=list)  # at which cycle each token came
    read_at: int = 0  # at which cycle its prompt was read
    generator: Any = None

    def put(self, what: Any) -> None:
        """Take what mlx_lm's queue would."""
        if isinstance(what, server.GenerationContext):
            self.context = what
        elif isinstance(what, tuple):
            self.read_at = self.generator.cycle
        else:
            self.came.append(what)
            self.at.append(self.generator.cycle)
        if self.leaves is not None and self.context is not None and what is not self.context:
            self.leaves -= 1
            if self.leaves <= 0:
                self.context.stop()

    @property
    def tokens(self) -> list[int]:
        return [response.token for response in self.came if isinstance(response, server.Response)]

    @property
    def arguments(self) -> Any:
        made = server.GenerationArguments(
            model=server.ModelDescription("default_model", "default_model", ""),
            sampling=server.SamplingArguments(self.temperature, 1.0, 0, 0.0, 0.0, 0.1),
            logits=server.LogitsProcessorArguments(self.logit_bias, 0.0, 20, 0.0, 20, 0.0, 20),
            stop_words=[],
            max_tokens=self.max_tokens,
            num_draft_tokens=self.draft,
            logprobs=False,
            top_logprobs=0,
            seed=self.seed,
            chat_template_kwargs=None,
        )
        setattr(made, request_context.CONTEXT_ATTRIBUTE, RequestContext(auto=self.auto, ahead=self.ahead))
        return made


class Generator:
    """What `Serving` uses of mlx_lm's ResponseGenerator."""

    _is_distributed = _stop = False

    def __init__(self, target: Any, draft: Any, step: int = 512, *, ends: bool = True) -> None:
        self.model_provider = SimpleNamespace(
            model=target, draft_model=draft, tokenizer=Tokenizer(ends=ends), model_key=("model",)
        )
        self.prompt_cache = TruePromptCache(10)
        self.cli_args = SimpleNamespace(
            prefill_step_size=step, kv_bits=None, decode_concurrency=32, prompt_cache_bytes=None
        )
        self.cycle = 0
        self._arrivals: list[tuple[int, Asked]] = []
        self.ticks = 0
        self.serving = Serving(self._tick)

    def _tick(self) -> None:
        self.ticks += 1

    def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> Any:
        return list(request.prompt), [list(request.prompt)], ["user"], "normal", None

    def _make_state_machine(self, *_: Any) -> tuple[None, None]:
        return None, None

    def _is_batchable(self, args: Any) -> bool:
        return bool(args.stop_words)

    def _next_request(self, timeout: float | None = None) -> Any:
        if self._arrivals and self._arrivals[0][0] <= self.cycle:
            return self._queued(self._arrivals.pop(0)[1])
        self.cycle += 1  # asked once more in each cycle than requests come
        return None

    def _queued(self, asked: Asked) -> tuple[Any, Any, Any]:
        asked.generator = self
        arguments = asked.arguments
        arguments.stop_words = ["batched"] if asked.batchable else []
        return asked, SimpleNamespace(prompt=asked.prompt, messages=[]), arguments

    def serve(self, *arrivals: tuple[int, Asked]) -> list[Asked]:
        """Serve requests that come at these cycles, and those that are left when it has nothing to do."""
        self.cycle = 0
        self._arrivals = sorted(arrivals, key=lambda arrival: arrival[0])
        while self._arrivals:
            self.cycle = max(self.cycle, self._arrivals[0][0])
            request = self._queued(self._arrivals.pop(0)[1])
            self.serving.serve(self, request, mx.default_stream(mx.default_device()))
        return [asked for _, asked in arrivals]
