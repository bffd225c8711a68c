"""Ends the process when mlx_lm.server's generation thread has died.

The thread loads the model and then serves every request. When an exception ends it (no model at the path, a crash),
mlx_lm.server logs the traceback and stays: it holds the port and answers 404 and 503 for ever. A process that has
ended with a reason is easier to look after than one that lives and cannot work.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from draftd.engine.exits import leave
from draftd.engine.records import describe
from draftd.protocol import EXIT_GENERATION_DIED


def watch(generator: Any, on_death: Callable[[str], None]) -> None:
    """Wrap the thread's methods on the class `generator` (mlx_lm's ResponseGenerator).

    `_generate` is where the exception is seen, and `_run_generate` where mlx_lm has finished logging it: there
    `on_death` is called, in the thread, with the exception as one line. A thread that was told to stop has not
    died.
    """
    generate, run_generate = generator._generate, generator._run_generate

    @functools.wraps(generate)
    def _generate(self: Any) -> None:
        try:
            generate(self)
        except BaseException as error:
            self._cause_of_death = describe(error)
            raise

    @functools.wraps(run_generate)
    def _run_generate(self: Any) -> None:
        try:
            run_generate(self)
        finally:
            if not self._stop:
                on_death(getattr(self, "_cause_of_death", "it returned"))

    generator._generate, generator._run_generate = _generate, _run_generate


def exit_on_death(cause: str) -> NoReturn:
    """End the process with the reason on stderr."""
    leave(EXIT_GENERATION_DIED, f"the generation thread died: {cause}")
