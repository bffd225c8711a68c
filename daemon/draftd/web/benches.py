"""The bench that is started and watched from the dashboard, one at a time.

It is `draftd bench` in a process of its own, with a daemon and workers of its own, which end with it. It reports
its progress and its result in lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from draftd import clock
from draftd.errors import RequestError
from draftd.hub import weight_bytes
from draftd.profiles import Profile
from draftd.web.aiohttp_app import EXCHANGE, json_response
from draftd.web.router import Router
from draftd.workers.process import working_folder

log = structlog.get_logger("web")
MAX_LINE = 16 * 2**20  # bytes; a result, with every single generation, takes some 100,000
MAX_STOP = 60.0  # seconds until a bench that is to end is killed


@dataclass(slots=True)
class Run:
    """One bench. `began` is in epoch seconds; `report` is its result, `error` why there is none."""

    profile: str | None
    quick: bool
    process: asyncio.subprocess.Process
    began: float = field(default_factory=time.time)
    doing: str = "starting"
    done: int = 0
    total: int = 0
    running: bool = True
    stopped: bool = False
    report: dict[str, Any] | None = None
    error: str | None = None

    def progress(self) -> dict[str, Any]:
        """What the status says about it."""
        names = ("profile", "quick", "began", "doing", "done", "total", "running", "stopped", "error")
        return {name: getattr(self, name) for name in names}


class Benches:
    """The handlers. `command` starts a bench, and takes a profile unless it `has_models` of its own; `free_memory`
    is in bytes. A task of `tasks` follows the bench; `changed` is called when there is progress.
    """

    def __init__(
        self,
        command: Sequence[str],
        router: Router,
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
        free_memory: Callable[[], int],
        *,
        has_models: bool,
    ) -> None:
        self.command = tuple(command)
        self._router = router
        self._tasks = tasks
        self._changed = changed
        self._free_memory = free_memory
        self._has_models = has_models
        self._run: Run | None = None
        self._starting = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/api/bench", self.show),
            web.post("/api/bench", self.start),
            web.post("/api/bench/stop", self.stop),
        ]

    def progress(self) -> dict[str, Any] | None:
        """How far the last one is; None if there was none."""
        return self._run.progress() if self._run else None

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/bench: how far the last bench is, and its result."""
        run = self._run
        told = run and run.progress() | {"report": run.report}
        return json_response({"demo": self._has_models, "bench": told})

    async def start(self, request: web.Request) -> web.Response:
        """POST /api/bench with `{"profile": NAME, "quick": true}`: measure that profile's models."""
        profile, quick = self._wanted(_body(await request[EXCHANGE].body()))
        async with self._starting:
            if self._run and self._run.running:
                raise RequestError(
                    409, "a bench is running: wait for its end, or stop it", code="bench_running"
                )
            if profile:
                await self._check_room(self._router.table.resolve(profile))
            self._run = Run(profile, quick, await self._process(profile, quick=quick))
        self._tasks.create_task(self._follow(self._run))
        log.info("a bench begins", profile=profile or "demo")
        self._changed()
        return json_response(self._run.progress(), status=202)

    async def stop(self, request: web.Request) -> web.Response:
        """POST /api/bench/stop: end the bench that is running."""
        run = self._run
        if run is None or not run.running:
            raise RequestError(409, "no bench is running", code="no_bench")
        _end(run)
        return json_response(run.progress(), status=202)

    async def close(self) -> None:
        """End the bench that is running, and return when it is gone."""
        if not (run := self._run) or not run.running:
            return
        _end(run)
        try:
            async with clock.limit(MAX_STOP):
                await run.process.wait()
        except TimeoutError:
            run.process.kill()

    def _wanted(self, body: Mapping[str, Any]) -> tuple[str | None, bool]:
        if unknown := body.keys() - {"profile", "quick"}:
            raise RequestError(400, f"there is no field '{min(unknown)}'", param=min(unknown))
        name, quick = body.get("profile"), body.get("quick", False)
        if not isinstance(quick, bool):
            raise RequestError(400, "quick must be true or false", param="quick")
        if self._has_models:
            if name is not None:
                raise RequestError(
                    400, "a demo daemon measures the demo models: name no profile", param="profile"
                )
            return None, quick
        if not isinstance(name, str):
            raise RequestError(400, "profile must be the name of a profile", param="profile")
        return self._router.table.resolve(name).name, quick

    async def _process(self, profile: str | None, *, quick: bool) -> asyncio.subprocess.Process:
        words = [*self.command, *([profile] if profile else []), *(["--quick"] if quick else [])]
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=MAX_LINE,
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing is imported from the folder it is started in
            cwd=working_folder(),
            start_new_session=True,  # Ctrl-C is for the daemon, which then ends it
        )

    async def _check_room(self, profile: Profile) -> None:
        """A bench loads the target model twice, once with a draft and once without. Raises RequestError (409)."""
        need, free = (
            await asyncio.to_thread(weight_bytes, (profile.model, *profile.models)),
            self._free_memory(),
        )
        if need is not None and need > free:
            raise RequestError(
                409,
                f"a bench of {profile.name} loads {need / 1e9:.1f} GB of weights beside the workers, and "
                f"{max(0, free) / 1e9:.1f} GB of the memory budget are free: stop workers first",
                code="no_room",
            )

    async def _follow(self, run: Run) -> None:
        """Take what the bench writes, up to its end."""
        assert run.process.stdout is not None
        assert run.process.stderr is not None
        complaints = asyncio.ensure_future(run.process.stderr.read())
        try:
            async for line in run.process.stdout:
                self._take(run, line)
                self._changed()
        except ValueError:  # a line beyond all measure
            _end(run)
        said = (await complaints).decode("utf-8", "replace").strip()
        await run.process.wait()
        run.running = False
        if run.report is None and not run.stopped:
            run.error = said.rpartition("draftd: ")[2] or "it ended without a message"
        log.info("a bench has ended", profile=run.profile or "demo", error=run.error)
        self._changed()

    def _take(self, run: Run, line: bytes) -> None:
        with suppress(
            ValueError, TypeError, AttributeError, LookupError, RecursionError
        ):  # no line of a bench's
            told = json.loads(line)
            if told.get("event") == "progress":
                run.doing, run.done, run.total = told["doing"], told["done"], told["total"]
            elif told.get("event") == "report":
                run.report = told["report"]


def _end(run: Run) -> None:
    run.stopped = True
    with suppress(ProcessLookupError):
        run.process.terminate()


def _body(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    return body
