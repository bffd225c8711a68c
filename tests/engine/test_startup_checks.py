"""The wrapper around `server.run`: the limit of the prompt cache, a port that is taken."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.exits import EngineError
from draftd.engine.startup_checks import checked_run
from draftd.protocol import EXIT_FAILED, EXIT_PORT_TAKEN


def run(error: Exception | None = None, **flags: Any) -> tuple[list[Any], list[int]]:
    """Return the calls of the wrapped function, and the limits that were set."""
    calls: list[Any] = []
    limits: list[int] = []

    def server_run(host: str, port: int, model_provider: Any) -> None:
        calls.append((host, port, model_provider))
        if error is not None:
            raise error

    provider = SimpleNamespace(cli_args=SimpleNamespace(**({"prompt_cache_bytes": None} | flags)))
    checked_run(server_run, limits.append)("127.0.0.1", 8000, provider)
    return calls, limits


def test_the_server_is_run_as_it_was_called() -> None:
    calls, limits = run()
    assert [call[:2] for call in calls] == [("127.0.0.1", 8000)]
    assert limits == []


@pytest.mark.parametrize("limit", [0, 1000])
def test_the_prompt_cache_is_limited(limit: int) -> None:
    assert run(prompt_cache_bytes=limit)[1] == [limit]


def test_a_taken_port_has_its_own_code() -> None:
    with pytest.raises(EngineError, match=r"port 8000 on 127\.0\.0\.1 is taken: Address") as caught:
        run(OSError(errno.EADDRINUSE, "Address already in use"))
    assert caught.value.code == EXIT_PORT_TAKEN


def test_another_error_in_listening_names_the_address() -> None:
    with pytest.raises(EngineError, match=r"port 8000 of 127\.0\.0\.1 failed: .*Permission") as caught:
        run(PermissionError(errno.EACCES, "Permission denied"))
    assert caught.value.code == EXIT_FAILED


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="elsewhere"):
        run(RuntimeError("elsewhere"))
