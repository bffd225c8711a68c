"""Real agents as clients of the daemon: how they are run, and the scripted model that they talk to."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.harness import Served, serving

TOOL_CALLER = Path(__file__).with_name("tool_caller.py")


async def run_agent(*command: str, folder: Path, env: Mapping[str, str], limit: float) -> tuple[str, str]:
    """What an agent writes to stdout and stderr. Fails unless it ends well, within `limit` seconds."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit):
            said, complaint = (text.decode() for text in await process.communicate())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said + complaint
    return said, complaint


@asynccontextmanager
async def scripted_model(tmp_path: Path) -> AsyncIterator[tuple[Served, Path]]:
    """A daemon with the scripted model `caller`, and the file of the requests that reached it."""
    log = tmp_path / "requests"
    command = [sys.executable, str(TOOL_CALLER), "--port", "{port}", "--log-requests", str(log)]
    profile = f'model = "scripted"\ncommand = {json.dumps(command)}\n[limits]\nconcurrency = 2\n'
    (tmp_path / "daemon").mkdir()
    async with serving(tmp_path / "daemon", {"caller": profile}) as served:
        log.write_text("")  # without the readiness check
        yield served, log


def further_messages(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The roles of the messages that the second request adds. Fails unless it continues the first one: what they
    have in common is what the prompt cache serves.
    """
    common = len(first["messages"])
    assert second["messages"][:common] == first["messages"]
    assert second["tools"] == first["tools"]
    return [message["role"] for message in second["messages"][common:]]
