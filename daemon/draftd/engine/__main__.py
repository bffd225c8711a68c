"""`python -m draftd.engine <flags of mlx_lm.server>`: mlx_lm.server, with our hooks around it."""

import gc
import os
import sys
import traceback
from collections.abc import Callable

from draftd.engine import channel, lifeline, records, release
from draftd.engine.exits import EngineError, leave
from draftd.engine.open_files import own_limit
from draftd.engine.records import describe
from draftd.protocol import EXIT_FAILED

NO_LIBRARY = "a process on its own needs no MPI"  # no library has this name


def main(until_wanted: Callable[[], None] = lambda: None) -> None:
    """Hold lifeline and channel, place the hooks, and hand over to mlx_lm.server. Every way out has its exit code.

    `until_wanted` is called when everything is imported, and returns when `sys.argv` holds the flags.
    """
    records.keep_lines_whole()
    try:
        lifeline.hold(os.environ)  # first: importing mlx_lm takes seconds
        channel.hold(os.environ)
        release.before_sigterm()
        stay_alone()
        place()
        until_wanted()
        serve()
    except EngineError as error:
        leave(error.code, str(error))
    except SystemExit:
        raise  # by the parser of the flags: there is no thread yet that could keep us
    except BaseException as error:
        traceback.print_exc()
        leave(EXIT_FAILED, f"ended by {describe(error)}")


def stay_alone() -> None:
    """Hide MPI from mlx. mlx_lm always asks for a group, and an MPI that is installed starts a daemon of its own
    for that (orted), which nobody here would know or end.
    """
    os.environ["MLX_MPI_LIBNAME"] = NO_LIBRARY


def place() -> None:
    """Import mlx_lm, and place the hooks."""
    gc.disable()  # what is imported stays: looking for garbage in it takes 5 % of the time
    with own_limit():
        from draftd.engine import hooks

        hooks.announce(hooks.place_all())
    gc.freeze()
    gc.enable()


def serve() -> None:
    """Take this process's share of the memory, and run mlx_lm.server until it ends."""
    from mlx_lm import server

    from draftd.engine import hooks

    channel.follow_shares(hooks.obey)
    sys.argv[0] = "draftd.engine"  # the name in the help text
    server.main()


if __name__ == "__main__":
    main()
