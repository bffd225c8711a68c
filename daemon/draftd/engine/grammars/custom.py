"""Grammars that clients send for the text of a tool, in OpenAI's two syntaxes, as parts of our own grammars. Pure.

Most models write that text as a string of JSON, where a letter may be written as an escape. So what the client's
grammar says of letters is said of what stands for them: a line feed becomes a backslash and an n, and a class of
characters becomes one without those that JSON escapes, or their escapes. Other models write the text as it is, up
to a mark.

Either way a lexer that takes the longest piece first could miss the end of a piece: a backslash may go on with it
or begin what follows, and so may the first letter of the mark. So the whole grammar becomes one terminal, in which
nothing is decided too early. One that refers to itself cannot, and is refused where that matters.

Only what Lark itself knows is taken: what llguidance adds could write tokens that a text cannot hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

REGEX = "regex"
START = "start"
_TOKEN = re.compile(
    r"""(?P<comment>(?://|\#)[^\n]*)
    |(?P<range>"(?:[^"\\\n]|\\.)+"\s*\.\.\s*"(?:[^"\\\n]|\\.)+")
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?:[^/\\\n]|\\.)+/[imslux]*)
    |(?P<alias>->\s*\w+)
    |(?P<import>%import[^\n]*)
    |(?P<ignore>%ignore\b)
    |(?P<name>[!?]*[A-Za-z_][A-Za-z0-9_]*)
    |(?P<times>~\s*[0-9]+(?:\s*\.\.\s*[0-9]+)?|\{[0-9,\s]+\})
    |(?P<mark>[:|()\[\]*+?]|\.-?[0-9]+)
    |(?P<space>\s+)""",
    re.VERBOSE,
)
_IMPORT = re.compile(r"%import\s+common\s*(?:\.\s*(\w+)(?:\s*->\s*(\w+))?|\(([\w\s,]+)\))\s*(?:(?://|\#).*)?")
_PART = re.compile(
    r"""(?P<structure>\(\?:|\(\?P?<[A-Za-z_]\w*>|[()|]|(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)
    |(?P<atom>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[dDwWsSnrtfv]|[^A-Za-z0-9])|\.
        |\[\^?\]?(?:\\.|[^\\\]\[])*\]|[^\\()\[|*+?{.^$])""",
    re.VERBOSE,
)
_ESCAPED = [*map(chr, range(0x20)), '"', "\\"]
_CLASS_OF_ESCAPED = r'["\\\x00-\x1f]'
_DECIMAL, _EXPONENT = r"(?:[0-9]+\.[0-9]*|\.[0-9]+)", "[eE][+-]?[0-9]+"
_FLOAT = f"(?:[0-9]+{_EXPONENT}|{_DECIMAL}(?:{_EXPONENT})?)"
# What Lark's `common` has. It is written out where it is imported, so that it can be treated like the rest.
_COMMON = {
    "DIGIT": "[0-9]", "HEXDIGIT": "[a-fA-F0-9]", "INT": "[0-9]+", "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": _DECIMAL, "FLOAT": _FLOAT, "SIGNED_FLOAT": f"[+-]?{_FLOAT}", "NUMBER": f"(?:{_FLOAT}|[0-9]+)",
    "SIGNED_NUMBER": f"[+-]?(?:{_FLOAT}|[0-9]+)", "LCASE_LETTER": "[a-z]", "UCASE_LETTER": "[A-Z]",
    "LETTER": "[a-zA-Z]", "WORD": "[a-zA-Z]+", "CNAME": "[_a-zA-Z][_a-zA-Z0-9]*", "CR": r"\r", "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+", "WS_INLINE": r"[ \t]+", "WS": r"[ \t\f\r\n]+",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
}  # fmt: skip
Token = tuple[str, str]  # its kind, and its text


class GrammarError(ValueError):
    """A grammar cannot be enforced; the text says why."""


@dataclass(frozen=True, slots=True)
class TextGrammar:
    """The form of a text; its `syntax` is lark or regex."""

    syntax: str
    definition: str

    def terminals(self, prefix: str, *, in_json: bool) -> str | None:
        """Return the same in Lark, as terminals with names that begin with `prefix`; the whole is `{prefix}START`.

        It is for the inside of a JSON string, or for a text as it is. None if it is more than terminals can be.
        Raise GrammarError for what cannot be enforced.
        """
        tokens = [token for token in self._tokens(in_json) if token[0] not in ("alias", "comment")]
        if any(kind == "ignore" for kind, _ in tokens) or _refers_to_itself(tokens):
            return None
        rules = {
            _name(text) for (kind, text), (_, after) in _with_next(tokens) if kind == "name" and after == ":"
        }
        names = {rule: prefix + _terminal(rule) for rule in rules}
        return "".join(names.get(_name(text), text) if kind == "name" else text for kind, text in tokens)

    def rules(self, *, in_json: bool) -> str:
        """Return the same in Lark, as a grammar of its own. Raise GrammarError."""
        lark = "".join(text for _, text in self._tokens(in_json))
        if _CLASS_OF_ESCAPED in lark:
            text = "it refers to itself, and has classes with characters that JSON escapes"
            raise GrammarError(f"{text}; this model writes calls as JSON")
        return lark

    def _tokens(self, in_json: bool) -> list[Token]:
        if self.syntax == REGEX:
            pattern = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", self.definition).replace("\n", r"\n")
            tokens = [("name", START), ("mark", ":"), ("space", " "), ("regex", f"/{pattern}/")]
        else:
            tokens = list(_split(self.definition))
        return [(kind, _in_json(kind, text)) for kind, text in tokens] if in_json else tokens


def _split(definition: str) -> Iterator[Token]:
    place = 0
    while place < len(definition):
        found = _TOKEN.match(definition, place)
        if found is None or found.lastgroup is None:
            raise GrammarError(
                f"line {definition.count(chr(10), 0, place) + 1}: {_line_at(definition, place)!r}"
            )
        if found.lastgroup == "import":
            yield from _imported(found[0])
        else:
            yield found.lastgroup, found[0]
        place = found.end()


def _line_at(definition: str, place: int) -> str:
    return definition[place:].partition("\n")[0][:60]


def _imported(line: str) -> Iterator[Token]:
    found = _IMPORT.fullmatch(line.strip())
    names = [found[1]] if found and found[1] else found[3].replace(",", " ").split() if found else []
    if not found or not names or not all(name in _COMMON for name in names):
        raise GrammarError(f"{line.strip()[:60]!r}: only Lark's common terminals can be imported")
    for name in names:
        yield from (
            ("name", found[2] or name),
            ("mark", ":"),
            ("space", " "),
            ("regex", f"/{_COMMON[name]}/"),
            ("space", "\n"),
        )


def _in_json(kind: str, text: str) -> str:
    if kind == "regex":
        pattern, _, flags = text[1:].rpartition("/")
        if flags:
            raise GrammarError(f"{text[:60]}: flags cannot be enforced for a model that writes calls as JSON")
        return f"/{_pattern_in_json(pattern)}/"
    if kind == "range":
        first, last = (re.escape(_text(end)) for end in re.split(r"(?<=\")\s*\.\.\s*(?=\")", text))
        return f"/{_atom_in_json(f'[{first}-{last}]')}/"
    if kind != "string":
        return text
    written = _text(text.removesuffix("i"))
    escaped = json.dumps(written, ensure_ascii=False)[1:-1]
    if text.endswith("i") and escaped != written:
        raise GrammarError(f"{text[:60]}: it ignores case, and holds what JSON escapes")
    return json.dumps(escaped, ensure_ascii=False) + ("i" if text.endswith("i") else "")


def _text(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError as error:
        raise GrammarError(f"{literal[:60]} is not a string") from error


def _pattern_in_json(pattern: str) -> str:
    made, place = [], 0
    while place < len(pattern):
        found = _PART.match(pattern, place)
        if found is None:
            text = "cannot be enforced for a model that writes calls as JSON"
            raise GrammarError(f"/{pattern[:60]}/: what begins with {pattern[place : place + 10]!r} {text}")
        made.append(found[0] if found.lastgroup == "structure" else _atom_in_json(found[0]))
        place = found.end()
    return "".join(made)


def _atom_in_json(atom: str) -> str:
    """One character, or a class of them."""
    try:
        matches = re.compile(atom).fullmatch
    except re.error as error:
        raise GrammarError(f"{atom[:60]!r}: {error}") from error
    escapes = [re.escape(json.dumps(one)[1:-1]) for one in _ESCAPED if matches(one)]
    if not escapes:
        return atom
    plain = r"[^\n]" if atom == "." else atom
    others = [] if _is_one(atom) else [f"[{plain}--{_CLASS_OF_ESCAPED}]"]
    return f"(?:{'|'.join([*others, *escapes])})"


def _is_one(atom: str) -> bool:
    return not (atom.startswith("[") or atom in (".", r"\D", r"\W", r"\s", r"\S"))


def _with_next(tokens: list[Token]) -> Iterator[tuple[Token, Token]]:
    """Each token that is no space and no priority, with the next one."""
    solid = [token for token in tokens if token[0] != "space" and not token[1].startswith(".")]
    yield from zip(solid, [*solid, ("mark", "")][1:], strict=True)


def _refers_to_itself(tokens: list[Token]) -> bool:
    uses: dict[str, set[str]] = {}
    rule = ""
    for (kind, text), (_, after) in _with_next(tokens):
        if kind == "name" and after == ":":
            rule = _name(text)
            uses.setdefault(rule, set())
        elif kind == "name" and rule:
            uses[rule].add(_name(text))
    while leaves := {name for name, others in uses.items() if not others & uses.keys()}:
        uses = {name: others for name, others in uses.items() if name not in leaves}
    return bool(uses)


def _name(text: str) -> str:
    """The name of a rule without the marks that say what becomes of it in a tree."""
    return text.lstrip("!?")


def _terminal(name: str) -> str:
    """The name of a terminal; a rule and a terminal whose names differ in their case only stay two."""
    return name.upper() if not name.isupper() else f"T_{name}"
