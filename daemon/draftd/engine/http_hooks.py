"""The hooks into mlx_lm's HTTP handler, see `hooks`. Each raises UnfitError where it finds something else."""

import importlib
from typing import Any

from draftd.engine import request_context
from draftd.engine.expectations import UnfitError, expect, model_provider
from draftd.engine.guard import METHODS, refuse_strangers, refuse_web_pages
from draftd.engine.logit_bias import taking_bias
from draftd.engine.own_models import keeping_to_own, no_fetching


def place_quiet_health() -> None:
    """Keep the daemon's health checks out of the log."""
    server: Any = importlib.import_module("mlx_lm.server")
    handler = expect(server, "APIHandler")
    log_request = expect(handler, "log_request")

    def without_health(self: Any, *args: Any) -> None:
        # The daemon asks every other second; the log is for what somebody did.
        if getattr(self, "path", "") != "/health":
            log_request(self, *args)

    handler.log_request = without_health


def place_guard() -> None:
    """Refuse web pages, and programs without the key."""
    server: Any = importlib.import_module("mlx_lm.server")
    handler = expect(server, "APIHandler")
    for method in METHODS:
        expect(handler, method)
    for flag in ("allowed_origins", "cli_args"):
        if flag not in handler._set_cors_headers.__code__.co_names:
            raise UnfitError(f"mlx_lm.server.APIHandler._set_cors_headers does not use {flag}")
    expect(handler, "parse_request", caller="handle_one_request")
    refuse_web_pages(handler)
    refuse_strangers(handler)


def place_logit_bias() -> None:
    """Take logit_bias as clients send it."""
    server: Any = importlib.import_module("mlx_lm.server")
    handler = expect(server, "APIHandler")
    validate = expect(handler, "validate_model_parameters", caller="do_POST")
    for flag in ("logit_bias", "body"):
        if flag not in handler.do_POST.__code__.co_names:
            raise UnfitError(f"mlx_lm.server.APIHandler.do_POST does not set {flag}")
    model_provider(server)
    handler.validate_model_parameters = taking_bias(validate)


def place_own_models() -> None:
    """Load no other models and fetch no images for a request."""
    server: Any = importlib.import_module("mlx_lm.server")
    handler = expect(server, "APIHandler")
    validate = expect(handler, "validate_model_parameters", caller="do_POST")
    for attribute in ("requested_model", "requested_draft_model", "adapter", "num_draft_tokens"):
        if attribute not in handler.do_POST.__code__.co_names:
            raise UnfitError(f"mlx_lm.server.APIHandler.do_POST does not set {attribute}")
    inline = expect(server, "_inline_image_urls", "messages")
    if "_inline_image_urls" not in handler.handle_chat_completions.__code__.co_names:
        raise UnfitError("mlx_lm.server.APIHandler.handle_chat_completions does not use _inline_image_urls")
    image_url = expect(server, "_image_url", "part")
    image_parts = expect(server, "_image_parts", "messages")
    handler.validate_model_parameters = keeping_to_own(validate)
    server._inline_image_urls = no_fetching(inline, lambda said: map(image_url, image_parts(said)))


def place_request_context() -> None:
    """Carry what the daemon says of a request to the thread that generates."""
    server: Any = importlib.import_module("mlx_lm.server")
    handler, generator = expect(server, "APIHandler"), expect(server, "ResponseGenerator", caller="run")
    expect(handler, "do_POST")
    expect(handler, "handle_completion", caller="do_POST")
    expect(generator, "generate", "request", "generation_args")
    if "generate" not in handler.handle_completion.__code__.co_names:
        raise UnfitError("mlx_lm.server.APIHandler.handle_completion does not use generate")
    arguments = expect(server, "GenerationArguments", "num_draft_tokens")
    setattr(object.__new__(arguments), request_context.CONTEXT_ATTRIBUTE, None)  # raises where it takes none
    request_context.carry(handler, generator)
