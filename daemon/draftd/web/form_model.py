"""Where the name of the model stands in a form (`multipart/form-data`) that comes in pieces. Pure."""

from __future__ import annotations

import re

from draftd.errors import RequestError

MAX_PARTS = 1000  # of a form
MAX_HEAD = 64 * 1024  # bytes of a part's head; a longer one names no model
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
# What stands in quotes, as the name of a file does, is skipped. Nothing is tried twice (`*+`): heads may be long.
_NAMED_MODEL = re.compile(
    rb"""
    ^content-disposition: [^;"\r\n]*+
    (?: ; (?! [ \t]* name=) (?: [^;"\r\n] | "(?: [^"\\\r\n] | \\[^\r\n] )*+" )*+ )*+  # the other parameters
    ; [ \t]* name= (?: "model" | model (?= [;\s] | \Z) )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_LINE, _HEAD_END = b"\r\n", b"\r\n\r\n"


class FormModel:
    """Takes the pieces of a form in their order; `place` is where in all of them the first name of a model stands,
    None as long as none was found. Raises RequestError (400) for a content type without a boundary.
    """

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        if found is None:
            raise RequestError(400, "the Content-Type of a form must have a boundary")
        self._mark = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
        self._rest = bytearray(_LINE)  # what was not looked at yet: the first mark may stand at the beginning
        self._at = -len(_LINE)  # where in the form that begins
        self._in_head = False
        self._parts = 0
        self._start: int | None = None  # of a name whose end has not come yet
        self.place: slice | None = None

    def take(self, piece: bytes) -> None:
        """Raises RequestError (400) if there are more than MAX_PARTS parts."""
        if self.place is None:
            self._rest += piece
            while self.place is None and (self._read_head() if self._in_head else self._find_mark()):
                pass
            if self.place is not None:
                self._rest.clear()

    def _find_mark(self) -> bool:
        """Look for the next mark; returns whether it was there."""
        found = self._rest.find(self._mark)
        if found < 0:
            self._drop(max(0, len(self._rest) - len(self._mark) + 1))
            return False
        if self._start is not None and self._start <= self._at + found:
            self.place = slice(self._start, self._at + found)
        self._begin_part(found)
        return True

    def _begin_part(self, found: int) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RequestError(400, f"the form has more than {MAX_PARTS} parts")
        self._drop(found + len(self._mark))
        self._in_head, self._start = True, None

    def _read_head(self) -> bool:
        """Look for the name of a part; returns whether there is more to look at."""
        end = self._rest.find(_HEAD_END, 0, MAX_HEAD)
        if end < 0:
            self._in_head = len(self._rest) < MAX_HEAD
            return not self._in_head
        if (mark := self._rest.find(self._mark, 0, end)) >= 0:
            self._begin_part(mark)  # the part before it has no head
            return True
        if _NAMED_MODEL.search(self._rest, 0, end):
            self._start = self._at + end + len(_HEAD_END)
        self._drop(end + len(_LINE))  # the next mark may begin with the end of the head
        self._in_head = False
        return True

    def _drop(self, count: int) -> None:
        del self._rest[:count]
        self._at += count
