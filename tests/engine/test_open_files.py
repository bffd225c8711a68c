"""The limit of open files in a worker: what is allowed is enough, whatever mlx_lm asks for."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLACED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 3_000))
from draftd.engine.__main__ import place
place()
import mlx_lm.utils
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.real
@pytest.mark.fault(223)
def test_mlx_lm_is_imported_with_as_many_files_as_are_allowed() -> None:
    made = subprocess.run(
        [sys.executable, "-c", PLACED], capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "2048 3000"
