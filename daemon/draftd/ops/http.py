"""HTTP as the command line speaks it: one client for any server, and on it the running daemon's own API."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from draftd import __version__
from draftd.errors import DraftdError, NotRunningError
from draftd.instance import find_daemon
from draftd.tls import trusting

ANSWER_TIMEOUT = 10.0  # seconds for what needs no model


class RefusedError(DraftdError):
    """The server answers with an error status; `reason` is its own message, "" if it has none.

    With `short` that is all that a person is shown: it is clear who answers.
    """

    def __init__(self, url: str, status: int, reason: str, *, short: bool = False) -> None:
        whole = f"{url} answers with status {status}{f': {reason}' if reason else ''}"
        super().__init__(reason if short else whole)
        self.status = status
        self.reason = reason


class NoAnswerError(DraftdError):
    """Nobody answers at the address, or not with HTTP; `reason` says why."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"nobody answers at {url}: {reason}")
        self.reason = reason


class HttpClient:
    """The server at `url`, which is trusted by its `certificate` (PEM) alone if one is given. Never goes through a
    proxy of the environment. Raises RefusedError, NoAnswerError.
    """

    def __init__(self, url: str, api_key: str = "", certificate: str = "") -> None:
        self.url = url
        self._headers = {"User-Agent": f"draftd/{__version__}"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        trusted = (HTTPSHandler(context=trusting(certificate)),) if certificate else ()
        self._opener = build_opener(ProxyHandler({}), *trusted)

    def json(self, path: str, *, method: str = "GET") -> Any:
        """The JSON at `path`. Raises ValueError for an answer that is not JSON, OSError for one that breaks off."""
        with self.open(path, method=method) as answer:
            return json.load(answer)

    def open(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout: float | None = ANSWER_TIMEOUT,
    ) -> Any:
        """The answer, as a file to read and to close. `timeout` is for each silence, in seconds; None: forever."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        request = Request(self.url + path, data, headers, method=method)
        try:
            return self._opener.open(request, timeout=timeout)
        except HTTPError as error:
            raise RefusedError(self.url + path, error.code, _message_of(error)) from error
        except (OSError, ValueError, HTTPException) as error:
            raise NoAnswerError(self.url, in_words(getattr(error, "reason", error))) from error


class DaemonClient:
    """The running daemon, found through its state folder.

    Raises NotRunningError if none holds `state_dir` or it does not answer, DraftdError for what it refuses.
    """

    def __init__(self, state_dir: Path, api_key: str = "") -> None:
        self.daemon = find_daemon(state_dir)
        self._has_key = bool(api_key)
        self._http = HttpClient(self.daemon.url, api_key, self.daemon.certificate)

    def status(self) -> dict[str, Any]:
        """The body of /api/status."""
        with self._open("/api/status") as answer:
            body: dict[str, Any] = json.load(answer)
        return body

    def models(self) -> list[dict[str, Any]]:
        """The models that clients can ask for, those of peers too, as /v1/models lists them."""
        with self._open("/v1/models") as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]
        return found

    def model(self, word: str) -> str:
        """The name of the profile that has `word` for its name or an alias."""
        with self._open(f"/v1/models/{quote(word, safe='')}") as answer:
            return str(json.load(answer)["id"])

    def order(self, name: str, order: str) -> dict[str, Any]:
        """Restart, start or stop a worker; returns the daemon's answer."""
        with self._open(f"/api/workers/{quote(name, safe='')}/{order}", "POST") as answer:
            body: dict[str, Any] = json.load(answer)
        return body

    def reload(self) -> list[str]:
        """Reload the profiles; returns the names of those that changed."""
        with self._open("/api/reload", "POST") as answer:
            changed: list[str] = json.load(answer)["changed"]
        return changed

    def log(
        self, name: str | None, lines: int, *, since: float = 0.0, raw: bool = False, follow: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The newest lines of a log, or of all logs if `name` is None, and with `follow` those to come: time,
        worker, text.

        `since` is in epoch seconds; `raw` adds the lines for machines.
        """
        asked = f"lines={lines}&since={since:.3f}&raw={int(raw)}&follow={int(follow)}&json=1"
        path = f"/api/logs{'' if name is None else f'/{quote(name, safe=str())}'}?{asked}"
        with self._open(path, timeout=None if follow else ANSWER_TIMEOUT) as answer:
            for line in answer:
                yield json.loads(line)

    def _open(self, path: str, method: str = "GET", timeout: float | None = ANSWER_TIMEOUT) -> Any:
        try:
            return self._http.open(path, method=method, timeout=timeout)
        except RefusedError as error:
            reason = error.reason or f"the daemon answered with status {error.status}"
            if error.status == 401:
                given = "another one is" if self._has_key else "none is"
                where = "DRAFTD_API_KEY, or as api_key in draftd.toml"
                reason = (
                    f"the daemon at {self.daemon.url} asks for its API key, and {given} set here as {where}"
                )
            raise RefusedError(self.daemon.url, error.status, reason, short=True) from error
        except NoAnswerError as error:
            text = f"the daemon (pid {self.daemon.pid}) does not answer at {self.daemon.url}: {error.reason}"
            raise NotRunningError(text) from error


def _message_of(error: HTTPError) -> str:
    """The message in OpenAI's form, or in mlx_lm.server's, whose error is a string."""
    try:
        return error_message(json.load(error)["error"])
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return ""


def error_message(error: Any) -> str:
    """What an `error` in an answer says."""
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def in_words(reason: object) -> str:
    """Why there is no answer, for people."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {reason.verify_message}"
    if isinstance(reason, ssl.SSLError):  # its numbers are not the system's
        return f"TLS failed there: {reason.reason}"
    if isinstance(reason, OSError) and reason.errno is not None:
        return os.strerror(reason.errno)
    return str(reason)
