"""The dashboard: a static page and the files it loads. They hold no data, so they need no API key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard/style.css": ("style.css", "text/css"),
    "/dashboard/page.js": ("page.js", "text/javascript"),
    "/dashboard/bench.js": ("bench.js", "text/javascript"),
    "/dashboard/chat.js": ("chat.js", "text/javascript"),
    "/dashboard/dom.js": ("dom.js", "text/javascript"),
    "/dashboard/hour.js": ("hour.js", "text/javascript"),
    "/dashboard/log.js": ("log.js", "text/javascript"),
    "/dashboard/peers.js": ("peers.js", "text/javascript"),
    "/dashboard/profiles.js": ("profiles.js", "text/javascript"),
    "/dashboard/requests.js": ("requests.js", "text/javascript"),
    "/dashboard/workers.js": ("workers.js", "text/javascript"),
    "/dashboard/charts.js": ("charts.js", "text/javascript"),
    "/dashboard/format.js": ("format.js", "text/javascript"),
    "/dashboard/stream.js": ("stream.js", "text/javascript"),
    "/dashboard/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    # Nothing from other sites, nothing inline, and no frame of another page around ours: its buttons stop workers.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a new version of draftd brings a new page
}


def routes() -> list[web.RouteDef]:
    """Paths and handlers."""
    folder = Path(__file__).parent
    return [web.get(path, _serving(folder / name, kind)) for path, (name, kind) in FILES.items()]


def _serving(file: Path, kind: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    text = file.read_text("utf-8")

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=kind, headers=HEADERS)

    return serve
