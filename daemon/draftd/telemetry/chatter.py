"""Which lines of a worker's log are for machines, or repeat what a request's line says. Pure."""

from __future__ import annotations

import re

from draftd.protocol import RECORD_PREFIX

_CHATTER = re.compile(
    r"""
    .*\ -\ INFO\ -\ Prompt\ processing\ progress:\ .*
    | .*\ -\ INFO\ -\ (?:Prompt\ Cache:|Prompt\ cache|-\ ).*  # how full mlx_lm's prompt cache is
    | .*\ -\ INFO\ -\ Starting\ httpd\ at\ .*
    | [0-9.:a-f]+\ -\ -\ \[[^]]*\]\ "[A-Z]+\ [^"]*"\ [0-9]{3}\ .*  # of Python's http.server
    | (?:INFO:\ +)?[0-9.]+:[0-9]+\ -\ "[A-Z]+\ [^"]*"\ [0-9]{3}.*  # of uvicorn
    | (?:\[[A-Za-z0-9._-]+\]\ )?Draft\ tokens\ accepted:\ [0-9]+/[0-9]+\ \([0-9]+%\)
    | .*UserWarning:\ mlx_lm\.server\ is\ not\ recommended\ for\ production\ .*
    | \ *warnings\.warn\(
    """,
    re.VERBOSE,
)


_RANK = re.compile(r"\[rank [0-9]{1,3}(?: on [^\]]{1,300})?\] ")  # before each line of one of several ranks


def is_chatter(line: str) -> bool:
    """Whether a line can be left out for a person who has not asked for all of them."""
    line = _RANK.sub("", line, count=1) if line.startswith("[rank ") else line
    return line.startswith(RECORD_PREFIX) or _CHATTER.fullmatch(line) is not None
