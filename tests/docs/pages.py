"""The pages for people, taken apart: headings, links, and blocks of code with the shell commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "daemon/draftd/demo/MODEL_CARD.md")
NOT_RUN = "not run in the test: "  # in a comment before a block, and then why

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- ([^\n]*) -->\n\n?\Z")
_INLINE = re.compile(r"`([^`\n]+)`")
_HEREDOC = re.compile(r"<<'?(\w+)'?")
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_OPERATORS = re.compile(r"[;&|()<>]+")


@dataclass(frozen=True)
class Block:
    """A block of code. `comment` is the text of an HTML comment right before it."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.comment.startswith(NOT_RUN)


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in the order of the pages."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        comment = _COMMENT.search(before)
        yield Block(page, before.count("\n") + 2, found[1], found[2], comment[1] if comment else "")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text("utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands between backticks."""
    return _INLINE.findall(prose(page))


def links(page: Path) -> list[str]:
    """The targets of links and pictures."""
    return [one or other for one, other in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(block: str) -> Iterator[str]:
    """The commands of a shell block, each with its further lines: after a backslash, in quotes, or as its input."""
    lines = iter(block.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\") or _is_open(command):
            command += "\n" + next(lines)
        if heredoc := _HEREDOC.search(command):
            for further in lines:
                command += "\n" + further
                if further == heredoc[1]:
                    break
        if command.strip() and not command.lstrip().startswith("#"):
            yield command


def _is_open(command: str) -> bool:
    """Whether a quotation goes on in the next line."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def files_written(block: Block) -> Iterator[tuple[str, str]]:
    """The files that a shell block writes from its own lines: name and text."""
    for command in commands(block.text):
        first, _, rest = command.partition("\n")
        if _HEREDOC.search(first) and (file := re.search(r"/([\w.-]+)\"? <<", first)):
            yield file[1], rest.rpartition("\n")[0]


def words(command: str) -> Iterator[list[str]]:
    """The words of each program call in a command, without the variables before it and the files after < and >."""
    first = command.partition("\n")[0] if _HEREDOC.search(command) else command.replace("\\\n", " ")
    lexer = shlex.shlex(first, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    found: list[str] = []
    into_file = False
    for token in lexer:
        if _OPERATORS.fullmatch(token):
            into_file = token[0] in "<>"
            if not into_file and found:
                yield found
                found = []
        elif into_file:
            into_file = False
        elif found or not re.match(r"[A-Z_]+=", token):
            found.append(token)
    if found:
        yield found
