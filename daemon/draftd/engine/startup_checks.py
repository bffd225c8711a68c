"""What is checked after mlx_lm.server has parsed its flags and before it serves: a wrapper around `server.run`.

There the flags are known as mlx_lm.server itself understood them, and an OSError means that it cannot listen.
"""

import errno
import functools
from collections.abc import Callable
from typing import Any

from draftd.engine.exits import EngineError
from draftd.protocol import EXIT_FAILED, EXIT_PORT_TAKEN


def checked_run(run: Callable[..., None], limit_cache: Callable[[int], None]) -> Callable[..., None]:
    """Wrap `mlx_lm.server.run`. `limit_cache` is called with the value of `--prompt-cache-bytes`, if it is given.

    mlx_lm.server itself heeds that flag only where it batches requests, which it never does with a draft model.
    """

    @functools.wraps(run)
    def checked(host: str, port: int, model_provider: Any, *args: Any, **kwargs: Any) -> None:
        flags = model_provider.cli_args
        if flags.prompt_cache_bytes is not None:
            limit_cache(flags.prompt_cache_bytes)
        try:
            run(host, port, model_provider, *args, **kwargs)
        except OSError as error:
            raise cannot_listen(host, port, error) from error

    return checked


def cannot_listen(host: str, port: int, error: OSError) -> EngineError:
    """Return the reason to end when listening on the address has failed."""
    if error.errno == errno.EADDRINUSE:
        return EngineError(EXIT_PORT_TAKEN, f"port {port} on {host} is taken: {error.strerror}")
    return EngineError(EXIT_FAILED, f"listening on port {port} of {host} failed: {error}")
