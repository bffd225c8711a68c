"""`python -m daemon.engine <flags of mlx_lm.server>`: mlx_lm.server, with our hooks around it."""

import os
import sys
import traceback

from daemon.engine import lifeline, records
from daemon.engine.exits import EXIT_FAILED, EngineError, describe, leave


def main() -> None:
    """Hold the lifeline, place the hooks, and hand over to mlx_lm.server. Every way out has its exit code."""
    records.keep_lines_whole()
    try:
        lifeline.hold(os.environ)  # first: importing mlx_lm takes seconds
        serve()
    except EngineError as error:
        leave(error.code, str(error))
    except SystemExit:
        raise  # the flags' parser: there is no thread yet that could keep us
    except BaseException as error:
        traceback.print_exc()
        leave(EXIT_FAILED, f"ended by {describe(error)}")


def serve() -> None:
    """Run mlx_lm.server until it ends. SIGTERM ends it at once, as it always did."""
    from daemon.engine import hooks

    hooks.announce(hooks.place_all())
    from mlx_lm import server

    sys.argv[0] = "daemon.engine"  # the name in its help
    server.main()


if __name__ == "__main__":
    main()
