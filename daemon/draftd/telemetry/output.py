"""What becomes of a worker's output: it is cut into lines, kept in the worker's log, and read for reports."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import structlog

from draftd.telemetry.chatter import is_chatter
from draftd.telemetry.lines import LineSplitter
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.record_parser import parse_line
from draftd.telemetry.records import DraftAcceptance, PromptProgress
from draftd.telemetry.worker_log import WorkerLog

log = structlog.get_logger("telemetry")

DAEMON = "_daemon"  # the name of the daemon's own log: no profile can have it
MAX_MERGED = 2000  # lines of all logs together

OnReport = Callable[[str, DraftAcceptance | PromptProgress], None]


class Sink:
    """Takes the output of all workers, by name. The log files are in `folder`.

    `on_report` is called with the worker's name for each line that reports something; `acceptance` gives the
    pattern of a worker's lines that report draft tokens, None if none of them does.
    """

    def __init__(
        self,
        folder: Path,
        on_report: OnReport,
        acceptance: Callable[[str], re.Pattern[str] | None],
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._on_report = on_report
        self._acceptance = acceptance
        self._metrics = metrics
        self._logs: dict[str, WorkerLog] = {}
        self._splitters: dict[str, LineSplitter] = {}
        self.merged = WorkerLog(None, ring_lines=MAX_MERGED, on_error=self._on_error(DAEMON))

    def feed(self, name: str, chunk: bytes) -> None:
        """Take what the worker wrote."""
        self._take(name, self._splitters.setdefault(name, LineSplitter()).feed(chunk))

    def note(self, name: str, text: str) -> None:
        """Add what the daemon has to say about a worker to its log; the daemon's own is `DAEMON`."""
        if name == DAEMON or name in self._logs:  # a worker that has been forgotten has no log
            self._keep(name, text.splitlines(), _for_people)

    def note_event(self, who: str, text: str, line: str) -> None:
        """An event of the daemon, about a worker or (with an empty `who`) about itself. `line` names the worker."""
        self.log(DAEMON).write(line.splitlines(), is_chatter=_for_people)
        if who:
            self._keep(who, text.splitlines(), _for_people)
        else:
            self.merged.write(line.splitlines(), DAEMON, _for_people)

    def _keep(self, name: str, lines: list[str], is_chatter: Callable[[str], bool]) -> None:
        self.log(name).write(lines, is_chatter=is_chatter)
        self.merged.write(lines, name, is_chatter)

    def log(self, name: str) -> WorkerLog:
        """The log of a worker, made when it is first asked for."""
        if name not in self._logs:
            self._logs[name] = WorkerLog(self._file(name), on_error=self._on_error(name))
        return self._logs[name]

    def _file(self, name: str) -> Path:
        """Where the log of `name` goes. On a disk that takes 'A.log' for 'a.log' two workers' lines must not mix.

        No profile's name has a '~'.
        """
        alike = sum(other.casefold() == name.casefold() for other in self._logs)
        return self._folder / (f"{name}~{alike + 1}.log" if alike else f"{name}.log")

    def last_words(self, name: str, count: int) -> list[str]:
        """The last `count` lines of a child that has ended, including a line that it did not finish."""
        self._take(name, self._splitters.pop(name, LineSplitter()).flush())
        return [line.text for line in self.log(name).tail(count)]

    def forget(self, name: str) -> None:
        """The worker is gone for good; its file stays."""
        self._splitters.pop(name, None)
        if name in self._logs:
            self._logs.pop(name).close()

    def close(self) -> None:
        """Close all files."""
        for kept in (*self._logs.values(), self.merged):
            kept.close()

    def _take(self, name: str, lines: list[str]) -> None:
        acceptance = self._acceptance(name)
        # What a `command` says about its drafts is in no request's line.
        self._keep(
            name, lines, lambda line: is_chatter(line) and not (acceptance and acceptance.fullmatch(line))
        )
        for line in lines:
            report = parse_line(line, acceptance)
            if report is not None:
                self._on_report(name, report)

    def _on_error(self, name: str) -> Callable[[OSError], None]:
        def tell(error: OSError) -> None:
            self._metrics.log_write_error(name)
            log.warning(
                "a worker's log cannot be written; serving goes on", worker=name, reason=error.strerror
            )

        return tell


def _for_people(_: str) -> bool:
    """What the daemon itself says is never chatter."""
    return False
