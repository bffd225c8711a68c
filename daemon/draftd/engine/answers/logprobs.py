"""The log-probabilities of an answer's tokens, in the forms of both of OpenAI's endpoints. Pure.

They are natural logarithms. A token's text is that of its own bytes, with a replacement character for a part of a
character; `bytes` are exact, so that those of several tokens give the character.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IMPOSSIBLE = -9999.0  # OpenAI's value for what has no probability; JSON has no infinity
_SPACE_MARK = "\u2581".encode()  # SentencePiece's


@dataclass(frozen=True, slots=True)
class Chosen:
    """A generated token, its log-probability, and the likeliest tokens in its place with theirs, likeliest first.

    `trimmed`: the answer begins with it, and without the space that its text begins with.
    """

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()
    trimmed: bool = False


class TokenNames:
    """The bytes of a tokenizer's tokens. `tokenizer` is mlx_lm's TokenizerWrapper."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokens = getattr(tokenizer.detokenizer, "tokenmap", None)
        self._decode = tokenizer.decode

    def bytes_of(self, token: int) -> bytes:
        """Return what a token adds to a text."""
        if self._tokens is None or token >= len(self._tokens):
            return bytes(self._decode([token]).encode(errors="replace"))
        raw = self._tokens[token]
        if isinstance(raw, bytes):
            return raw.replace(_SPACE_MARK, b" ")
        return b"".join(_byte_level().get(character, character.encode()) for character in raw or "")

    def text_of(self, token: int) -> str:
        """Return the text of a token by itself."""
        return self.bytes_of(token).decode(errors="replace")


@functools.cache
def _byte_level() -> dict[str, bytes]:
    """Return the bytes for which characters stand in GPT-2's vocabulary and those made after it.

    A printable byte is its own character; the others have those from 256 on, in their order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    named = {chr(byte): bytes([byte]) for byte in printable}
    return named | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


def chat_form(tokens: Sequence[tuple[int, Chosen]], names: TokenNames) -> dict[str, Any]:
    """Return `logprobs` of a chat completion's choice."""
    return {"content": [_chat_entry(chosen, names) for _, chosen in tokens], "refusal": None}


def _chat_entry(chosen: Chosen, names: TokenNames) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = _bytes(chosen, token, names)
        return {
            "token": data.decode(errors="replace"),
            "logprob": max(logprob, IMPOSSIBLE),
            "bytes": list(data),
        }

    likeliest = [entry(*each) for each in chosen.likeliest]
    return entry(chosen.token, chosen.logprob) | {"top_logprobs": likeliest}


def text_form(tokens: Sequence[tuple[int, Chosen]], names: TokenNames) -> dict[str, Any]:
    """Return `logprobs` of a text completion's choice, with places counted in characters from the answer's start.

    As in OpenAI's, the token itself is among the likeliest whether it is one or not.
    """
    form: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for offset, chosen in tokens:
        likeliest: dict[str, float] = {}
        for token, logprob in (*chosen.likeliest, (chosen.token, chosen.logprob)):
            name = _bytes(chosen, token, names).decode(errors="replace")
            likeliest.setdefault(name, max(logprob, IMPOSSIBLE))
        form["tokens"].append(_bytes(chosen, chosen.token, names).decode(errors="replace"))
        form["token_logprobs"].append(max(chosen.logprob, IMPOSSIBLE))
        form["top_logprobs"].append(likeliest)
        form["text_offset"].append(offset)
    return form


def _bytes(chosen: Chosen, token: int, names: TokenNames) -> bytes:
    data = names.bytes_of(token)
    return data[1:] if chosen.trimmed and token == chosen.token else data
