"""`python -m draftd.ops.host_report REQUEST`: what the doctor wants to know about a machine, run there by ssh.

REQUEST is a JSON object: `models`, named as in profiles, and `addresses` that should be this machine's. The answer
is one line of JSON.
"""

from __future__ import annotations

import json
import platform
import socket
import sys
import time
from typing import Any

from draftd import __version__
from draftd.hub import read_model
from draftd.ops.doctor.versions import versions


def report(request: dict[str, Any]) -> dict[str, Any]:
    """Look at this machine. `missing` are models that are not here, `strange` addresses that are not its own."""
    found = versions()
    return {
        "draftd": __version__,
        "python": platform.python_version(),
        "mlx": found.mlx,
        "mlx-lm": found.mlx_lm,
        "time": time.time(),
        "missing": [name for name in request["models"] if not read_model(name).is_here],
        "strange": [address for address in request["addresses"] if not _is_ours(address)],
    }


def _is_ours(address: str) -> bool:
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.bind(found[0][4])
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(report(json.loads(sys.argv[1]))))
