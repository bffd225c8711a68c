"""`python -m draftd.engine.group.stand_in`: what mpirun starts in the place of a rank. See `mpi`.

It says what mpirun has put into its environment, in one write that is short enough to come in one piece. It ends
when its parent has gone, which is mpirun or its daemon on another machine. mpirun gives its own stdin to the first
one; when that is at its end, so is the group. The first one then fails, and mpirun ends all when one fails.
"""

import base64
import json
import os
import select
import sys
import zlib

OF_MPI = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "ORTE_")  # the beginnings of the names of what a rank needs
LOOK_S = 1.0  # between two looks whether its parent is still there
RANK = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK")


def line(environ: dict[str, str]) -> bytes:
    """Return what a stand-in says with this environment."""
    given = {name: value for name, value in environ.items() if name.startswith(OF_MPI)}
    rank = next(given[name] for name in RANK if name in given)
    return f"{rank} {base64.b64encode(zlib.compress(json.dumps(given).encode())).decode()}\n".encode()


def parse(said: bytes) -> tuple[int, dict[str, str]]:
    """Return the rank, and what it needs. Raise ValueError for what no stand-in has said."""
    rank, text = said.split()
    try:
        return int(rank), json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def main() -> int:
    """Say it, wait for the end, and return the exit code."""
    parent = os.getppid()
    os.write(1, said := line(dict(os.environ)))
    heard = [0] if said.startswith(b"0 ") else []
    while os.getppid() == parent:
        if select.select(heard, [], [], LOOK_S)[0] and not os.read(0, 4096):
            break
    return 1


if __name__ == "__main__":
    sys.exit(main())
