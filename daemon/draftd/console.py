r"""What a person sees in a terminal: the one place that prints.

Names of processes and models, prompts, answers and errors come from others. So every text that is printed is plain
(none of rich's markup), and whatever in it could control a terminal, or show a line in another order than it has,
is written as \x1b or \u202e. `Terminal` does that last of all, whoever made the text; nothing else prints.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from draftd.terminal_text import harmless, harmless_in_a_pipe

PIPE_WIDTH = 1000  # columns where there is no terminal: a table keeps every figure there
PALETTE = ("cyan", "magenta", "blue", "green", "yellow", "bright_black")
TONES = {"good": "green", "plain": "", "low": "yellow", "bad": "red"}
# Commands in quotes that take --state-dir, such as 'draftd restart NAME'.
_HINT = re.compile(
    r"('draftd (?:up|status|ps|logs|restart|start|stop|reload|down|test|chat|run|bench|doctor)\b[^']*)(')"
)
_colours: dict[str, str] = {}  # by the name of a worker


class Terminal(Console):
    """stdout or stderr, for people. Raises BrokenPipeError when nobody reads any more."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """rich's own, through which all that it prints goes; all but rich's control codes is made harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)

    def say(self, *parts: str | Text, style: str = "") -> None:
        """Print a line of text, or several. The terminal wraps it, so that it can be copied whole."""
        self.print(*parts, style=style or None, soft_wrap=True)

    def show(self, shown: RenderableType) -> None:
        """Print a table or the like, in the width of the terminal."""
        own, self._width = self._width, self.room  # rich cuts at 80 columns where there is no terminal
        try:
            self.print(shown)
        finally:
            self._width = own

    @property
    def room(self) -> int:
        """Columns that a table may have: those of the terminal, or of COLUMNS; without either, PIPE_WIDTH."""
        return self.width if self.is_terminal or self._width else PIPE_WIDTH

    def piece(self, text: str, style: str = "") -> None:
        """Print a part of a text, as it comes."""
        if style and self.is_terminal:
            self.print(Text(text, style=style), end="", soft_wrap=True)
            self.file.flush()
        else:
            self._write(harmless(text))

    def data(self, text: str, *, end: str = "\n") -> None:
        """Print what other programs read, or what is kept in a file. Into a pipe it goes as it is, except for what
        would control the terminal at its end.
        """
        self._write((harmless(text) if self.is_terminal else harmless_in_a_pipe(text)) + end)

    def confirm(self, question: str) -> None:
        """Ask; raises typer.Abort if the answer is no."""
        typer.confirm(harmless(question), abort=True)

    def ask(self, question: str) -> str:
        """What the user types in one line. Raises EOFError at the end of the input."""
        with suppress(ImportError):  # lines that can be edited, and brought back
            import readline  # noqa: F401
        return self.input(Text(question))

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes a while."""
        with self.status(Text(text), spinner=self.spinner):
            yield

    def on_broken_pipe(self) -> None:
        """Called by rich for a BrokenPipeError, which goes on: rich's own ends the process, even a daemon."""
        raise  # noqa: PLE0704 - rich handles it

    @property
    def coloured(self) -> bool:
        """Whether a reader can tell by colours."""
        return self.is_terminal and self.color_system is not None and not self.no_color

    @property
    def spinner(self) -> str:
        """The name of a spinner that this terminal can show."""
        return "line" if self.options.ascii_only else "dots"

    def _write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()


out = Terminal()
err = Terminal(stderr=True)


def hinted(text: str) -> str:
    """`text`, where the commands in quotes get the --state-dir that this command was given, if any."""
    given = _state_dir(sys.argv[1:])
    if given is None:
        return text
    option = f" --state-dir {shlex.quote(given)}"
    return _HINT.sub(lambda found: f"{found[1]}{option}{found[2]}", text)


def _state_dir(arguments: list[str]) -> str | None:
    for at, word in enumerate(arguments):
        if word == "--state-dir" and arguments[at + 1 :]:
            return arguments[at + 1]
        if word.startswith("--state-dir="):
            return word.partition("=")[2]
    return None


def what_next(url: str, model: str, command: str, to_trust: str = "") -> str:
    """What a new user can try once the daemon serves; `command` is what starts draftd in their shell, `to_trust`
    the file of a certificate that signs itself.
    """
    trusted = f" --cacert {shlex.quote(to_trust)}" if to_trust else ""
    question = '[{"role": "user", "content": "What is a draft model?"}]'
    option = "" if (given := _state_dir(sys.argv[1:])) is None else f" --state-dir {shlex.quote(given)}"
    body = f'{{"model": "{model}", "stream": true, "messages": {question}}}'
    return (
        f"draftd serves at {url}/v1   (Ctrl-C stops it). Its dashboard: {url}/\nIn another terminal:\n\n"
        f"  curl -N{trusted} {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{body}'\n"
        f"  {command} test{option}\n  {command} chat{option}\n"
        f"  curl -s{trusted} {url}/metrics | grep draftd_draft\n"
    )


def colour_of(worker: str) -> str:
    """The colour of a worker's lines: a different one for each, as long as there are enough."""
    return _colours.setdefault(worker, PALETTE[len(_colours) % len(PALETTE)]) if worker else "bold"
