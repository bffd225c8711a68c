"""The wrapper around `server.run`: flags it refuses, the limit of the prompt cache, a port that is taken."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.exits import EngineError
from draftd.engine.startup_checks import checked_run
from draftd.protocol import EXIT_FAILED, EXIT_PORT_TAKEN, EXIT_REFUSED


def run(error: Exception | None = None, **flags: Any) -> tuple[list[Any], list[int]]:
    """Return the calls of the wrapped function, and the limits that were set."""
    calls: list[Any] = []
    limits: list[int] = []

    def server_run(host: str, port: int, model_provider: Any) -> None:
        calls.append((host, port, model_provider))
        if error is not None:
            raise error

    defaults = {"draft_model": None, "kv_bits": None, "prompt_cache_bytes": None}
    provider = SimpleNamespace(cli_args=SimpleNamespace(**(defaults | flags)))
    checked_run(server_run, limits.append)("127.0.0.1", 8000, provider)
    return calls, limits


@pytest.mark.parametrize("flags", [{}, {"draft_model": "small"}, {"kv_bits": 8}])
def test_sound_flags_are_handed_on(flags: dict[str, Any]) -> None:
    calls, limits = run(**flags)
    assert [call[:2] for call in calls] == [("127.0.0.1", 8000)]
    assert limits == []


def test_a_quantised_cache_with_a_draft_is_refused() -> None:
    with pytest.raises(EngineError, match=r"--kv-bits with --draft-model corrupts") as caught:
        run(draft_model="small", kv_bits=8)
    assert caught.value.code == EXIT_REFUSED


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
