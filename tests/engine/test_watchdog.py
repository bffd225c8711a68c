"""The watch over mlx_lm's generation thread, on a class of the same shape."""

from typing import Any

import pytest

from draftd.engine.watchdog import watch


def generator(outcome: BaseException | None, *, stopped: bool = False) -> tuple[Any, list[str]]:
    """Return a watched object, and the list in which causes of death will stand."""
    log: list[str] = []

    class Generator:
        _stop = stopped

        def _generate(self) -> None:
            if outcome is not None:
                raise outcome

        def _run_generate(self) -> None:
            try:
                self._generate()
            except Exception:
                log.append("traceback")

    watch(Generator, log.append)
    return Generator(), log


def test_death_is_told_after_the_traceback() -> None:
    subject, log = generator(FileNotFoundError("no such model\nand more"))
    subject._run_generate()
    assert log == ["traceback", "FileNotFoundError: no such model"]


def test_an_exit_that_mlx_lm_does_not_catch_is_a_death_too() -> None:
    subject, log = generator(SystemExit("out of the library"))
    with pytest.raises(SystemExit):
        subject._run_generate()
    assert log == ["SystemExit: out of the library"]


def test_a_thread_that_was_told_to_stop_has_not_died() -> None:
    subject, log = generator(None, stopped=True)
    subject._run_generate()
    assert log == []


def test_a_thread_that_just_returns_has_died() -> None:
    subject, log = generator(None)
    subject._run_generate()
    assert log == ["it returned"]
