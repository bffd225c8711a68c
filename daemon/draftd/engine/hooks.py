"""Every place where the engine touches mlx_lm, here and in `http_hooks`, each with a check that it is what the hook
was written for.

Written for mlx-lm 0.32.2. Before a hook replaces something it looks for it by name, for the parameters that it
uses, and whether mlx_lm looks it up by that name when it runs, since a replacement that nobody calls would be
worse than none. A hook that finds something else changes nothing, and the worker serves without it.

Requests that are not batched, all of a worker that drafts, are served by `serving` in our own loop. mlx_lm's
function for speculative decoding is not used any more; a worker where `serving` does not fit serves as mlx_lm
does, and counts nothing.
"""

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

from draftd.engine import cache_size, http_hooks, records, release
from draftd.engine.expectations import UnfitError, expect, model_provider
from draftd.engine.memory_limits import FREE_CACHE_SHARE, after, limits_of
from draftd.engine.model_facts import saying
from draftd.engine.progress import INTERVAL, at_most_every, with_ticks
from draftd.engine.records import describe
from draftd.engine.startup_checks import checked_run
from draftd.engine.watchdog import exit_on_death, watch
from draftd.protocol import PROMPT_STORE_VARIABLE, STARTED, MemoryShare, PromptStore

PLACED = "placed"

_report = at_most_every(INTERVAL, records.report_progress)


def _tick() -> None:
    release.park()
    _report()


def place_all() -> dict[str, str]:
    """Place the hooks that fit. Return, by name, PLACED or the reason why not."""
    return {name: _attempt(place) for name, (place, _) in HOOKS.items()}


def announce(placed: dict[str, str]) -> None:
    """Write the record of the start; for each hook that is missing, say what the worker lacks, and why."""
    missing = {name: reason for name, reason in placed.items() if reason != PLACED}
    for name, reason in missing.items():
        records.say(f"{HOOKS[name][1]}: {reason}")
    version = importlib.import_module("mlx_lm").__version__
    accounting = "serving" not in missing
    records.report(records.record(STARTED, accounting=accounting, mlx_lm=version, hooks=placed))


def _attempt(place: Callable[[], None]) -> str:
    try:
        place()
    except UnfitError as error:
        return str(error)
    except Exception as error:
        return describe(error)
    return PLACED


def _place_serving() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    generator = expect(server, "ResponseGenerator", caller="run")
    expect(generator, "_serve_single", "request", "stream", caller="_generate")
    expect(generator, "_tokenize", "tokenizer", "request", "args")
    expect(generator, "_make_state_machine", "model_key", "tokenizer", "stop_words")
    expect(server, "_make_logits_processors", "args")
    expect(server, "_format_top_logprobs", "logprobs", "top_n", "tokenizer")
    expect(server, "Response", "text", "token", "logprob", "finish_reason", "top_tokens")
    expect(server, "GenerationContext", "text_sm", "initial_state", "prompt", "tool_parser")
    expect(server, "GenerationArguments", "sampling", "logits", "max_tokens", "num_draft_tokens", "seed")
    model_provider(server)
    batchable = expect(generator, "_is_batchable", "args", caller="_generate")
    next_request = expect(generator, "_next_request", "timeout")
    expect(server, "_image_parts", "messages")
    from draftd.engine.request import wants_our_loop
    from draftd.engine.serving import Serving

    serving = Serving(_tick)

    def is_batchable(self: Any, args: Any) -> bool:
        return bool(batchable(self, args)) and not wants_our_loop(args)

    def serve_single(self: Any, request: Any, stream: Any) -> None:
        serving.serve(self, request, stream)

    def next_request_or_given_back(self: Any, timeout: float | None = None) -> Any:
        return serving.given_back() or next_request(self, timeout)

    generator._serve_single, generator._is_batchable = serve_single, is_batchable
    generator._next_request = next_request_or_given_back


def _place_progress() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    generator = expect(server, "ResponseGenerator", caller="run")
    generate = expect(generator, "generate", "request", "generation_args", "progress_callback")
    if "generate" not in server.APIHandler.handle_completion.__code__.co_names:
        raise UnfitError("mlx_lm.server.APIHandler.handle_completion does not use generate")
    generator.generate = with_ticks(generate, _tick)


def _place_answers() -> None:
    """Our answers replace mlx_lm's at three places that need each other: what writes them, what waits for them, and
    what reads the prompt.
    """
    server: Any = importlib.import_module("mlx_lm.server")
    handler, generator = expect(server, "APIHandler"), expect(server, "ResponseGenerator", caller="run")
    expect(handler, "handle_completion", "request", "stop_words", caller="do_POST")
    validate = expect(handler, "validate_model_parameters", caller="do_POST")
    expect(generator, "generate", "request", "generation_args", "progress_callback")
    expect(generator, "_await_response", "response_queue", caller="generate")
    tokenize = expect(generator, "_tokenize", "tokenizer", "request", "args", caller="_generate")
    expect(generator, "_make_state_machine", "stop_words", caller="_generate")
    for method in ("_set_stream_headers", "_set_completion_headers"):
        expect(handler, method, "status_code", caller="handle_completion")
    batch_generator = expect(server, "BatchGenerator", "model")
    if "BatchGenerator" not in generator._generate.__code__.co_names:
        raise UnfitError("mlx_lm.server.ResponseGenerator._generate does not use BatchGenerator")
    from draftd.engine.answers import arguments, completion, presence
    from draftd.engine.answers.exact_logits import on_exact_logits
    from draftd.engine.context_limit import tokenizing
    from draftd.engine.message_ends import dividing

    expect(server, "SamplingArguments", *arguments.SAMPLING)
    expect(server, "LogitsProcessorArguments", *arguments.LOGITS)
    expect(server, "GenerationArguments", "stop_words", *arguments.OTHERS)
    expect(server, "ModelDescription", *arguments.MODEL)
    expect(server, "GenerationContext", "text_sm", "initial_state", "tool_parser", "prompt")
    expect(server, "Response", "text", "token", "logprob", "finish_reason", "top_tokens")
    model_provider(server)
    server.BatchGenerator = on_exact_logits(batch_generator)
    handler.handle_completion = completion.handle_completion
    handler.validate_model_parameters = completion.taking_top_logprobs(validate)
    generator._await_response, generator._tokenize = presence.await_response, tokenizing(dividing(tokenize))


def _place_prompt_cache() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    cache = expect(server, "LRUPromptCache", "max_size", "max_bytes", caller="run")
    expect(cache, "insert_cache", "model", "tokens", "prompt_cache", "cache_type")
    expect(cache, "fetch_nearest_cache", "model", "tokens")
    if not isinstance(getattr(cache, "nbytes", None), property):
        raise UnfitError("mlx_lm.server.LRUPromptCache does not say its nbytes")
    generator = expect(server, "ResponseGenerator", caller="run")
    next_request = expect(generator, "_next_request", "timeout")
    from draftd.engine.prompt_cache import TruePromptCache

    server.LRUPromptCache = TruePromptCache
    generator._next_request = cache_size.telling(next_request)


def _place_loaded() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    provider = model_provider(server)
    provider._load = saying(expect(provider, "_load", caller="load"))


def _place_watchdog() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    generator = expect(server, "ResponseGenerator", caller="run")
    expect(generator, "_generate", caller="_run_generate")
    expect(generator, "_run_generate", caller="__init__")
    if "_stop" not in generator.stop_and_join.__code__.co_names:
        raise UnfitError("mlx_lm.server.ResponseGenerator.stop_and_join does not set _stop")
    watch(generator, exit_on_death)


def _place_memory_limits() -> None:
    names = ("mlx_lm.utils", "mlx_lm.generate", "mlx_lm.server")
    modules: list[Any] = [importlib.import_module(name) for name in names]
    server = modules[-1]
    for module in modules:
        expect(module, "maybe_set_recommended_wired_limit")
    if "max_bytes" not in inspect.signature(server.LRUPromptCache).parameters:
        raise UnfitError("mlx_lm.server.LRUPromptCache takes no max_bytes")
    provider = model_provider(server)
    load = expect(provider, "_load", caller="load")
    mx: Any = importlib.import_module("mlx.core")
    limits = limits_of(mx.device_info())
    if limits.gpu:
        mx.set_cache_limit(limits.gpu // FREE_CACHE_SHARE)
    server.LRUPromptCache = limits.bounding(server.LRUPromptCache)
    set_wired = limits.set_wired
    for module in modules:
        module.maybe_set_recommended_wired_limit = set_wired
    provider._load = after(load, limits)
    _obeying.append(limits.obey)


_obeying: list[Callable[[MemoryShare], None]] = []  # who wants to know this process's share of the memory


def obey(share: MemoryShare) -> None:
    """Keep to this share of the memory, if the hook for it is placed."""
    for one in _obeying:
        one(share)


def _place_stored_prompts() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    generator = expect(server, "ResponseGenerator", caller="run")
    next_request = expect(generator, "_next_request", "timeout")
    if "prompt_cache" not in generator.__init__.__code__.co_names:
        raise UnfitError("mlx_lm.server.ResponseGenerator holds no prompt_cache")
    model_provider(server)
    place = os.environ.pop(PROMPT_STORE_VARIABLE, "")
    if not place:
        return
    from draftd.engine.stored_prompts.attached import keeping

    generator._next_request = keeping(next_request, PromptStore.parse(place))


def _place_startup_checks() -> None:
    server: Any = importlib.import_module("mlx_lm.server")
    run = expect(server, "run", "host", "port", "model_provider", caller="main")

    def limit_cache(max_bytes: int) -> None:
        server.LRUPromptCache = functools.partial(server.LRUPromptCache, max_bytes=max_bytes)

    server.run = checked_run(run, limit_cache)


HOOKS: dict[str, tuple[Callable[[], None], str]] = {
    "answers": (
        _place_answers,
        "stop texts are matched as tokens, log-probabilities have mlx_lm's form, and no prompt is too long",
    ),
    "serving": (
        _place_serving,
        "nothing is drafted but in mlx_lm's own way, and draft acceptance is not counted",
    ),
    "progress": (_place_progress, "a slow request may be taken for a stalled one"),
    "quiet_health": (http_hooks.place_quiet_health, "the log is full of health checks"),
    "logit_bias": (http_hooks.place_logit_bias, "logit_bias is ignored"),
    "own_models": (http_hooks.place_own_models, "requests can load other models and fetch images"),
    "request_context": (
        http_hooks.place_request_context,
        "drafting counts for one profile where several share the worker, and no draft length adapts",
    ),
    "guard": (http_hooks.place_guard, "web pages and other programs can send requests to the worker's port"),
    "prompt_cache": (_place_prompt_cache, "cached prompts may change the answers of drafted requests"),
    "stored_prompts": (_place_stored_prompts, "prompts that were read are forgotten when the process ends"),
    "loaded": (_place_loaded, "the models' kinds of cache are not known"),
    "watchdog": (_place_watchdog, "the process outlives its generation thread"),
    "memory_limits": (
        _place_memory_limits,
        "it may wire all of the GPU's memory, and cached prompts have no bound in bytes",
    ),
    "startup_checks": (
        _place_startup_checks,
        "flags are not checked, and a taken port has no exit code of its own",
    ),
}
