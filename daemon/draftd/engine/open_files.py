"""How many files this process may have open.

mlx_lm sets the limits to 2,048 and 4,096 when it is imported: that fails where fewer are allowed, as with
`ulimit -n 1024`, and takes away from what is allowed where more are.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

WANTED = 2048  # files, if they are allowed


@contextmanager
def own_limit() -> Iterator[None]:
    """Ask for WANTED files as far as that is allowed, and let nobody set another limit within."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    set_limit = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = set_limit
