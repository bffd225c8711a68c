"""Byte chunks of a worker's output -> text lines of bounded length. Pure.

A worker may write anything: progress bars that only ever send CR, 100 MB without a break, NUL, escape
sequences, half a character at the end of a pipe read. The rules:

1. LF and CR both end a line. Empty lines are dropped, so CR LF is one break without remembering a CR.
2. At most `limit` bytes of an unfinished line are held. The byte after them makes the line come out at once,
   marked as cut, and everything up to the next break is dropped.
3. The result depends on the bytes alone, never on how they were chunked: only whole lines are decoded.
4. What comes out cannot drive a terminal or fake a line break: see `escape`.
"""

import codecs
import re

CUT = "… [cut]"

# C0 but tab, DEL, C1 (U+009B is a CSI to terminals), the Unicode line breaks, and the bidirectional controls
# that show a line in another order than its bytes. Surrogates stand for bytes that were not UTF-8: see `_text`
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""`text` with every character that could drive a terminal or break a line written as \x1b or \u202e.

    Tabs stay. Backslashes are not doubled: this is for reading, not for turning back.
    """
    # One replace for each kind of character: a call for each of 100 million NULs would hold the daemon up.
    if _UNSAFE.search(text):
        for char in filter(_UNSAFE.match, set(text)):
            text = text.replace(char, _code(ord(char)))
    return text


def _code(point: int) -> str:
    if 0xDC80 <= point <= 0xDCFF:  # surrogateescape's name for a byte
        point -= 0xDC00
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"


def _text(raw: bytearray) -> str:
    # What backslashreplace would give, in a twentieth of the time for bytes that are not text.
    return escape(raw.decode("utf-8", "surrogateescape"))


def _cut_text(raw: bytearray) -> str:
    # final=False leaves out a character that the cut went through, instead of showing half of it as garbage.
    whole = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(raw, final=False)
    return escape(whole) + CUT


class LineSplitter:
    """Turns one byte stream into lines; holds at most `limit` bytes between calls.

    `limit` is in bytes of the source; an escaped line can be up to four times as many characters.
    Raises ValueError if `limit` is not positive.
    """

    def __init__(self, limit: int = 8192) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1 byte, not {limit}")
        self._limit = limit
        self._held = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` completes, in order. Never raises, whatever the bytes."""
        # replace and split search with memchr: a long line costs a scan, not a loop over its bytes.
        *ended, rest = chunk.replace(b"\r", b"\n").split(b"\n")
        lines: list[str] = []
        for piece in ended:
            if piece:
                self._take(piece, lines)
            if self._held or self._dropping:
                self._end(lines)
        self._take(rest, lines)
        return lines

    def flush(self) -> list[str]:
        """The unfinished last line, if there is one. The splitter is then as new."""
        lines: list[str] = []
        self._end(lines)
        return lines

    def _take(self, piece: bytes, lines: list[str]) -> None:
        if self._dropping:
            return
        room = self._limit - len(self._held)
        self._held += piece[:room]
        if len(piece) > room:
            lines.append(_cut_text(self._held))
            self._held.clear()
            self._dropping = True

    def _end(self, lines: list[str]) -> None:
        if self._held:
            lines.append(_text(self._held))
            self._held.clear()
        self._dropping = False
