"""The running daemon as the command line sees it: found through the state folder, asked over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from draftd.errors import DraftdError, NotRunningError
from draftd.instance import find

TIMEOUT = 10.0  # seconds; the daemon answers for itself at once


class Client:
    """Raises NotRunningError if no daemon holds `state_dir`, DraftdError for what the daemon refuses."""

    def __init__(self, state_dir: Path, api_key: str = "") -> None:
        self.daemon = find(state_dir)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = build_opener(ProxyHandler({}))  # never through a proxy of the environment

    def status(self) -> dict[str, Any]:
        """The body of /api/status."""
        body: dict[str, Any] = self._json("GET", "/api/status")
        return body

    def model(self, word: str) -> str:
        """The name of the profile that has `word` for its name or an alias."""
        return str(self._json("GET", f"/v1/models/{quote(word, safe='')}")["id"])

    def order(self, name: str, order: str) -> dict[str, Any]:
        """restart, start or stop a worker."""
        body: dict[str, Any] = self._json("POST", f"/api/workers/{quote(name, safe='')}/{order}")
        return body

    def reload(self) -> list[str]:
        """Reload the profiles; the names of what changed."""
        changed: list[str] = self._json("POST", "/api/reload")["changed"]
        return changed

    def log(self, name: str, lines: int, *, follow: bool) -> Iterator[str]:
        """The newest lines of a worker's log, and with `follow` those to come."""
        path = f"/api/logs/{quote(name, safe='')}?lines={lines}&follow={int(follow)}"
        with self._open("GET", path, None if follow else TIMEOUT) as answer:
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\n")

    def _json(self, method: str, path: str) -> Any:
        with self._open(method, path, TIMEOUT) as answer:
            return json.load(answer)

    def _open(self, method: str, path: str, timeout: float | None) -> Any:
        request = Request(self.daemon.url + path, method=method, headers=self._headers)
        try:
            return self._opener.open(request, timeout=timeout)
        except HTTPError as error:
            raise DraftdError(_message(error)) from error
        except (URLError, OSError) as error:
            text = f"the daemon (pid {self.daemon.pid}) does not answer at {self.daemon.url}: {error}"
            raise NotRunningError(text) from error


def _message(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the daemon answered with status {error.code}"
