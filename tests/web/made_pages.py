"""The dashboard as it looks in states that are made up: a server of the real page, that says what a test tells it.

The figures go through the functions that make them for a real page, so that their shape is right.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from draftd import __version__
from draftd.protocol import CacheSize, Costs
from draftd.telemetry.history import FIGURES, MAX_STEPS, STEP
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from draftd.telemetry.request_record import RequestRecord, as_json
from draftd.web import status_report
from draftd.web.dashboard import routes
from draftd.workers.status import LastExit, RankStatus, WorkerStatus

PRESETS = tuple(f"qwen2.5-3b-speculative-{end}" for end in ("auto", "balanced", "fast", "max"))
GB = 2**30
CRASH = LastExit(
    1, "it ended while it was loading", time.time() - 41,
    ("Traceback (most recent call last):", '  File "/opt/mlx_lm/utils.py", line 312, in load_model',
     "ValueError: Model type qwen9 not supported."),
)  # fmt: skip


@dataclass
class Made:
    """What the server answers. `row` and the like make its parts."""

    workers: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    peers: list[dict[str, Any]] = field(default_factory=list)
    logs: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    problem: str | None = None
    bench: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    hour: dict[str, Any] = field(default_factory=lambda: hour({}))
    capture: bool = False
    answer: list[dict[str, Any]] = field(default_factory=list)
    key: str | None = None
    lost: bool = False

    def status(self) -> dict[str, Any]:
        return {
            "version": __version__, "pid": 4711, "started": status_report.iso(time.time() - 7000),
            "default_model": self.workers[0]["name"] if self.workers else None, "workers": self.workers,
            "peers": self.peers, "warm_spare": None, "memory": status_report.memory(24 * GB, None), "sharing": None,
            "stored_prompts": {"files": 3, "bytes": 41_000_000, "limit_bytes": 20 * GB},
            "reload_problem": self.problem, "bench": self.bench, "profiles_read": 1.0, "capture": self.capture,
        }  # fmt: skip


def row(
    name: str,
    state: str = "ready",
    *,
    ratios: tuple[float, ...] = (),
    speeds: tuple[float, ...] = (),
    active: int = 0,
    queue: int = 0,
    **changed: Any,
) -> dict[str, Any]:
    """A worker of the status, with the figures of its last requests."""
    runs = state not in {"stopped", "asleep", "waiting", "failed", "backoff"}
    given: dict[str, Any] = {
        "name": name, "worker": name, "shares_with": (), "state": state, "pid": 4711 if runs else None,
        "port": 8000 + len(name) if runs else None,
        "model": "mlx-community/Josiefied-Qwen2.5-3B-Instruct-abliterated-v1-4-bit",
        "draft_model": "mlx-community/Josiefied-Qwen2.5-0.5B-Instruct-abliterated-v1-4bit",
        "drafters": ("lookup", "model"), "num_draft_tokens": 5, "auto_draft": name.endswith("auto"),
        "since": time.time() - 95, "reason": "", "due": None, "restarts": 0, "last_exit": None,
        "memory_bytes": int(2.4 * GB) if runs else None, "start_seconds": 3.2, "accounting": True,
        "draft_refusal": None, "batch_refusal": None, "notes": (),
        "prompt_cache": CacheSize(3, 410_000_000, 2 * GB) if runs else None,
    }  # fmt: skip
    metrics = Metrics("1", "1")
    metrics.declare(name)
    for ratio, speed in zip(ratios, speeds, strict=True):
        metrics.record(name, _report(ratio))
        metrics.request(name, "chat", 200, 2.0)
        metrics.generation(
            name, prompt_tokens=800, completion_tokens=121, seconds=120 / speed, cached_tokens=600
        )
    made = status_report.worker(WorkerStatus(**given | changed), queue, metrics)
    return made | status_report.live(active, metrics.recent(name))


def _report(ratio: float) -> GenerationReport:
    """A request whose drafts were accepted to this share, the first positions most."""
    rounds, length = 40, 5
    accepted = tuple(round(rounds * ratio ** (0.6 + 0.2 * place)) for place in range(length))
    total, proposed = sum(accepted), rounds * length
    lookup = DraftAcceptance(total // 5, proposed // 5)
    return GenerationReport(
        rounds, proposed, total, accepted_by_position=accepted, proposed_by_position=(rounds,) * length,
        tokens=total + rounds, costs=Costs(0.021, 0.0018, 0.027), speedup=0.5 + 1.4 * ratio,
        drafters={"lookup": lookup, "model": DraftAcceptance(total - lookup.accepted, proposed - lookup.proposed)},
    )  # fmt: skip


def crashed(name: str, state: str = "failed", **changed: Any) -> dict[str, Any]:
    """A worker that was given up, or that starts again soon."""
    reason = "given up after 5 failures; 'draftd restart' tries again"
    return row(name, state, last_exit=CRASH, restarts=5, reason=reason, **changed)


def group(name: str) -> dict[str, Any]:
    """A worker in two ranks, one of them on another machine."""
    ranks = (RankStatus(0, "", 4711, 11 * GB, 0.1), RankStatus(1, "mini.local", None, 10 * GB, 0.4))
    big = "mlx-community/Qwen3-32B-4bit"
    return row(name, model=big, ranks=ranks, memory_bytes=21 * GB, ratios=(0.7,) * 6, speeds=(9.4,) * 6)


def peer(url: str, state: str, models: Mapping[str, str], **changed: Any) -> dict[str, Any]:
    """A peer of the status; `models` are names with their states."""
    now = time.time()
    made = {
        "name": url.partition("://")[2], "url": url, "weight": 1.0, "found": False, "state": state, "reason": "",
        "since": None if state == "new" else status_report.iso(now - 300), "due": None,
        "is_draftd": state == "well",
        "last_failure": None, "models": list(models), "active": 0, "requests": {"answered": 31, "failed": 1},
        "load": {name: {"state": state, "open": 1, "slots": 8} for name, state in models.items()},
        "tokens_per_second": dict.fromkeys(models, 31.4),
    }  # fmt: skip
    return made | changed


def request(number: int, **known: Any) -> dict[str, Any]:
    """A request of the list that was answered, unless `known` says otherwise."""
    given: dict[str, Any] = {
        "agent": "opencode/1.1.34", "profile": PRESETS[number % 4], "phase": "ended", "streamed": True,
        "waited": 0.02, "first_token": 0.31, "seconds": 4.7 + number, "status": 200, "prompt_tokens": 11_873,
        "cached_tokens": 11_264, "tokens": 412, "tokens_per_second": 88.31, "proposed": 500, "accepted": 341,
    }  # fmt: skip
    began = time.time() - 40 * number - 9
    return as_json(RequestRecord(f"req-{number:04}", "chat", began=began, **given | known))


def hour(profiles: Mapping[str, float]) -> dict[str, Any]:
    """The history of profiles that wrote this many tokens a second, with an idle quarter of an hour."""
    idle = range(100, 190)
    at = range(MAX_STEPS)
    told = {
        name: {
            "speed": [None if step in idle else speed * (1 + (step // 6 * 7 % 11) / 55) for step in at],
            "acceptance": [None if step in idle else 0.5 + ((step // 9 + place) * 5 % 13) / 40 for step in at],
            "queue": [0 if step in idle else (step // 20 + place) * 3 % 5 for step in at],
            "memory": [int((2.1 + 0.3 * place + 0.3 * step / MAX_STEPS) * GB) for step in at],
        }
        for place, (name, speed) in enumerate(profiles.items())
    }  # fmt: skip
    assert all(tuple(figures) == FIGURES for figures in told.values())
    return {"step_seconds": STEP, "ended_at": time.time(), "profiles": told}


def lines(name: str) -> list[dict[str, Any]]:
    """A worker's log."""
    texts = (
        "mlx 0.32.1, mlx_lm 0.32.0, on Apple M4 Pro",
        "loaded in 3.2 s",
        "Draft tokens accepted: 341/500 (68%)",
    )
    now = time.time()
    return [
        {"time": now - 60 + at, "text": f"[{name}] {text}", "chatter": False} for at, text in enumerate(texts)
    ]


@asynccontextmanager
async def shown(made: Made) -> AsyncIterator[str]:
    """Serve the page of that state; gives its address."""
    ending = asyncio.Event()
    app = web.Application()
    app.add_routes([*routes(), *_told(made, ending)])
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        ending.set()
        await runner.cleanup()


def _told(made: Made, ending: asyncio.Event) -> list[web.RouteDef]:
    async def events(request: web.Request) -> web.StreamResponse:
        if made.key and request.headers.get("Authorization") != f"Bearer {made.key}":
            return web.json_response({}, status=401)
        snapshot = {"status": made.status(), "requests": made.requests, "logs": made.logs}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: snapshot\ndata: " + json.dumps(snapshot).encode() + b"\n\n")
        if not made.lost:
            await ending.wait()
        return response

    async def profiles(request: web.Request) -> web.Response:
        settings = {
            "model": "big",
            "draft_model": "small",
            "num_draft_tokens": "auto",
            "limits": {"concurrency": 4},
        }
        problems = [made.problem] if made.problem else []
        found = [{"name": one["name"], "settings": settings} for one in made.workers]
        return web.json_response({"problems": problems, "profiles": found, "prompts": []})

    async def contents(request: web.Request) -> web.Response:
        asked = json.dumps(
            {"model": "balanced", "messages": [{"role": "user", "content": "What is a draft model?"}]}
        )
        return web.json_response(
            {"request": asked, "answer": json.dumps({"content": "A small model. " * 20})}
        )

    async def chat(request: web.Request) -> web.Response:
        chunks = (json.dumps(chunk) for chunk in made.answer)
        return web.Response(
            text="".join(f"data: {chunk}\n\n" for chunk in chunks), content_type="text/event-stream"
        )

    async def history(request: web.Request) -> web.Response:
        return web.json_response(made.hour)

    async def bench(request: web.Request) -> web.Response:
        told = made.bench and made.bench | {"report": made.report}
        return web.json_response({"demo": False, "bench": told})

    return [
        web.get("/api/events", events), web.get("/api/profiles", profiles), web.get("/api/history", history),
        web.get("/api/bench", bench), web.get("/api/requests/{id}/contents", contents),
        web.post("/v1/chat/completions", chat),
    ]  # fmt: skip
