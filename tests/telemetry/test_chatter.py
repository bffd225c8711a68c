"""Which lines of a worker's log a person does not read."""

from __future__ import annotations

import pytest

from draftd.telemetry.chatter import is_chatter

CHATTER = [
    'draftd-engine {"event": "progress"}',
    "2026-11-26 01:22:01,854 - INFO - Prompt processing progress: 14/15",
    "2026-11-26 01:22:01,854 - INFO - Prompt Cache: 4 sequences, 0.01 GB",
    "2026-11-26 01:22:01,854 - INFO - - assistant: 4 sequences, 0.01 GB",
    "2026-11-26 01:17:47,069 - INFO - Starting httpd at 127.0.0.1 on port 18100...",
    '127.0.0.1 - - [26/Nov/2026 01:22:01] "POST /v1/chat/completions HTTP/1.1" 200 -',
    'INFO:     127.0.0.1:52110 - "POST /v1/chat/completions HTTP/1.1" 200 OK',
    "Draft tokens accepted: 10/10 (100%)",
    "/x/server.py:1894: UserWarning: mlx_lm.server is not recommended for production as it only",
    "  warnings.warn(",
    '[rank 0] draftd-engine {"event": "progress"}',
    "[rank 12 on me@mini.local] Draft tokens accepted: 10/10 (100%)",
]
MATTERS = [
    "Traceback (most recent call last):",
    "RuntimeError: [metal] out of memory",
    "2026-11-26 01:22:01,854 - ERROR - Prompt processing progress: stuck",
    "2026-11-26 01:22:01,854 - WARNING - the model's template has no tools",
    "libc++abi: terminating",
    "Loaded 4 layers",
    "[rank 1] RuntimeError: [ring] connection to a peer was lost",
    "[rank one] draftd-engine {}",
]


@pytest.mark.parametrize("line", CHATTER)
def test_what_is_for_machines_is_chatter(line: str) -> None:
    assert is_chatter(line)


@pytest.mark.parametrize("line", MATTERS)
def test_what_went_wrong_is_not(line: str) -> None:
    assert not is_chatter(line)
