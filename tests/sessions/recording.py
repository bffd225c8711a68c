"""Records a session of ten turns of each agent that is installed: `python -m tests.sessions.recording`.

The agent asks the scripted model by way of a recorder, which keeps what it sends, and the daemon. Long texts are
cut to their beginnings, followed by a hash of the whole, so that a text which changes from turn to turn still does.
For each request the file holds what differs from the one before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from draftd.ops.connect.launch import agent, environment, flags
from draftd.ops.connect.offer import Offer, OfferedModel
from tests.agents import run_agent, scripted_model

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
TURNS = 10
MAX_TEXT = 160  # characters of a text that is kept
LISTS = ("messages", "input")
LIMIT = 300.0  # seconds
# By agent: its package's folder in build/, and what makes it answer a question without a terminal.
QUESTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "claude": ("claude-code", ("--permission-mode", "bypassPermissions", "-p")),
    "codex": ("codex", ("exec", "--skip-git-repo-check", "--sandbox", "danger-full-access")),
    "opencode": ("opencode", ("run",)),
}
QUIET = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_LSP_DOWNLOAD", "IS_SANDBOX",
)  # fmt: skip


def cut(value: Any) -> Any:
    """The same value with its long texts cut."""
    if isinstance(value, dict):
        return {key: cut(one) for key, one in value.items()}
    if isinstance(value, list):
        return [cut(one) for one in value]
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]} {hashlib.sha256(value.encode()).hexdigest()[:12]}"
    return value


def differences(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each request adds to the one before: fields that differ, and how many items of its list are `kept`."""
    told: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for request in requests:
        name = next(name for name in LISTS if name in request)
        kept = 0
        old = before.get(name, [])
        while kept < min(len(old), len(request[name])) and old[kept] == request[name][kept]:
            kept += 1
        fields = {key: value for key, value in request.items() if key != name and before.get(key) != value}
        told.append({"kept": kept, "more": {name: request[name][kept:]}, "fields": fields})
        before = request
    return told


def whole(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests that `differences` were made from."""
    requests: list[dict[str, Any]] = []
    for one in told:
        before = requests[-1] if requests else {}
        ((name, more),) = one["more"].items()
        requests.append({**before, **one["fields"], name: [*before.get(name, [])[: one["kept"]], *more]})
    return requests


@asynccontextmanager
async def recorder(url: str, kept: list[tuple[str, dict[str, Any]]]) -> AsyncIterator[str]:
    """An address that passes requests on to `url`, and keeps their paths and bodies."""

    async def pass_on(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            kept.append((request.path, json.loads(body)))
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        async with (
            aiohttp.ClientSession() as http,
            http.request(request.method, url + request.path_qs, data=body, headers=headers) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def session(name: str, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The path that an agent asks, and the requests of its conversation."""
    package, options = QUESTIONS[name]
    program = ROOT / "build" / package / "node_modules" / ".bin" / name
    project, home = folder / "project", folder / "home"
    project.mkdir(parents=True)
    home.mkdir()
    (project / "note.txt").write_text("swordfish\n")
    kept: list[tuple[str, dict[str, Any]]] = []
    async with scripted_model(folder) as (served, _), recorder(served.url, kept) as url:
        offer = Offer([OfferedModel("caller", 5, 200_000)], "caller", f"{url}/v1")
        path = f"{program.parent}:{os.environ['PATH']}"
        folders = {"HOME": str(home), "CODEX_HOME": str(home), "PWD": str(project)}
        base = {"PATH": path, "TERM": "dumb", **folders, **dict.fromkeys(QUIET, "1")}
        env = environment(agent(name), offer, "caller", "", base)
        words = (*flags(agent(name), offer, "caller"), *options)
        question = f"Have a look at [[{project / 'note.txt'} x{TURNS - 1}]]."
        await run_agent(str(program), *words, question, folder=project, env=env, limit=LIMIT)
    conversation = [(path, body) for path, body in kept if body.get("tools") and "count_tokens" not in path]
    assert len(conversation) == TURNS, [path for path, _ in kept]
    return conversation[0][0], [body for _, body in conversation]


async def main() -> None:
    for name, (package, _) in QUESTIONS.items():
        if not (ROOT / "build" / package).is_dir():
            print(f"{name} is not installed: 'make {package}-installed'")
            continue
        with tempfile.TemporaryDirectory() as folder:
            path, requests = await session(name, Path(folder))
            text = json.dumps([cut(request) for request in requests]).replace(folder, "/home/you")
        told = {"path": path, "requests": differences(json.loads(text))}
        (HERE / f"{name}.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {len(requests)} requests to {path}")


if __name__ == "__main__":
    asyncio.run(main())
