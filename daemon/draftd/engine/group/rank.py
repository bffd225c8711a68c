"""`python -m draftd.engine.group.rank`: one rank of a group, started by the launcher. See the package."""

import importlib
import os
import platform
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from draftd import __version__
from draftd.engine import channel, records, release
from draftd.engine.__main__ import place
from draftd.engine.exits import EngineError, leave
from draftd.engine.group import wire
from draftd.engine.group.backends import MPI
from draftd.engine.group.control import Control
from draftd.engine.records import describe
from draftd.protocol import EXIT_FAILED, EXIT_PORT_TAKEN, EXIT_REFUSED, MemoryShare


def main() -> None:
    """Be a rank until the end. Every way out has its exit code, as those of an engine on its own."""
    records.keep_lines_whole()
    try:
        control = Control()
        setup = control.setup
        os.environ.update(setup.environ)
        channel.take(setup.secret)
        control.start()
        release.before_sigterm()
        from draftd.engine.group import hook

        place_serving = hook.place(setup.rank, control)
        place()
        place_serving()
        control.say(**{wire.HELLO: versions() | {"missing": missing(setup)}})
        go = control.answer(wire.PORTS, busy, until=wire.GO)
        join(setup, go)
        serve(control, setup, go)
    except EngineError as error:
        leave(error.code, str(error))
    except SystemExit:
        raise  # by the parser of the flags
    except BaseException as error:
        traceback.print_exc()
        leave(EXIT_FAILED, f"ended by {describe(error)}")


def versions() -> dict[str, Any]:
    """Return what all ranks must have in common, and the time here, in epoch seconds."""
    return {
        "draftd": __version__,
        "python": platform.python_version(),
        "mlx": importlib.import_module("mlx.core").__version__,
        "mlx-lm": importlib.import_module("mlx_lm").__version__,
        "time": time.time(),
    }


def missing(setup: wire.Setup) -> list[str]:
    """Return the models that are named by a folder which is not on this machine."""
    wanted = ("--model", "--draft-model") if setup.rank == 0 else ("--model",)
    named = [setup.flags[at + 1] for at, flag in enumerate(setup.flags[:-1]) if flag in wanted]
    return [name for name in named if name.startswith("/") and not os.path.isdir(name)]


def busy(addresses: list[list[Any]]) -> dict[str, Any]:
    """Reply which of these addresses, each a host and a port, this rank could not listen on."""
    return {wire.BUSY: [[host, port] for host, port in addresses if not _can_listen(host, port)]}


def _can_listen(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.bind(found[0][4])  # as mlx does it: a port that was just used counts as taken
    except OSError:
        return False
    return True


def join(setup: wire.Setup, go: dict[str, Any]) -> None:
    """Connect with the other ranks. Raise EngineError."""
    import mlx.core as mx

    os.environ.update(go["environ"])
    if not mx.distributed.is_available(setup.backend):
        library = ": it finds no libmpi (MLX_MPI_LIBNAME in env names it)" if setup.backend == MPI else ""
        raise EngineError(EXIT_REFUSED, f"mlx has no backend {setup.backend} here{library}")
    try:
        with tempfile.TemporaryDirectory(prefix="draftd-") as folder:
            for name, text in go["files"].items():
                os.environ[name] = str(file := Path(folder, name))
                file.write_text(text, "utf-8")
            size = mx.distributed.init(strict=True, backend=setup.backend).size()
    except (RuntimeError, ValueError) as error:
        code = EXIT_PORT_TAKEN if "bind" in str(error) else EXIT_FAILED
        raise EngineError(code, f"the other ranks could not be reached: {describe(error)}") from error
    if size != setup.size:
        raise EngineError(EXIT_FAILED, f"there are {size} ranks, and should be {setup.size}")


def serve(control: Control, setup: wire.Setup, go: dict[str, Any]) -> None:
    """Take this rank's share of the memory, and run mlx_lm.server."""
    from mlx_lm import server

    from draftd.engine import hooks

    if share := go.get(wire.SHARE):
        hooks.obey(MemoryShare(**share))
    control.obey_shares(hooks.obey)
    sys.argv = ["draftd.engine", *setup.flags]
    server.main()


if __name__ == "__main__":
    main()
