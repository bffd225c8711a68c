"""The certificate that https is served with now: read again when its files have changed.

A certificate is often renewed by a program, in two files of which one is new before the other. What does not fit or
cannot be used is told, and the one from before stays in use; a look a moment later may find that all is well.
Connections that are open keep what they began with.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from draftd.errors import ConfigError
from draftd.files import looks
from draftd.tls import exposed, served

log = structlog.get_logger("https")


class ServedCertificate:
    """`problem` says why what is in the files is not used; None if it is. Each of `on_renewal` is called when a new
    certificate has taken the place of the old. Raises ConfigError if the first one cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert, self._key = cert, key
        self.read = self.look()  # first: what changes meanwhile is found to be new
        self.context, self.certificate = served(cert, key)
        self.problem: str | None = None
        self.on_renewal: list[Callable[[], object]] = [self._changed_anew]
        self._changed = asyncio.Event()
        self._warn_if_exposed()

    def current(self) -> ssl.SSLContext:
        """What a connection that begins now is served with."""
        return self.context

    def look(self) -> tuple[object, ...]:
        """What changes when a file does."""
        return tuple(found for path in (self._cert, self._key) if path for found in looks(path))

    def renew(self) -> bool:
        """Use what is in the files; returns whether that is new. Raises ConfigError, and the old stays in use."""
        found = self.look()
        try:
            context, certificate = served(self._cert, self._key)
        except ConfigError as error:
            if self.problem != str(error):
                log.error(  # noqa: TRY400 - it is about a file, not about this program
                    "the new certificate cannot be used; the one from before stays in use", reason=str(error)
                )
            self.problem = str(error)
            raise
        self.problem = None
        if found == self.read:
            return False
        self.read, self.context, self.certificate = found, context, certificate
        log.info("the certificate for https was renewed", names=", ".join(certificate.names))
        self._warn_if_exposed()
        for told in self.on_renewal:
            told()
        return True

    async def until_other_names(self, names: Sequence[str]) -> None:
        """Return when the certificate is for other names than these."""
        while tuple(names) == self.certificate.names:
            await self._changed.wait()

    def _changed_anew(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _warn_if_exposed(self) -> None:
        if told := exposed(self._key or self._cert):
            log.warning("others can read the key for https", reason=told)
