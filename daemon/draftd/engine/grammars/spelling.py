"""Texts as llguidance's grammars write them. Pure.

A tokenizer's special tokens are no text to llguidance: they stand in a grammar by their number. Which marks of a
model are special differs from model to model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from draftd.engine.grammars.custom import TextGrammar
from draftd.engine.grammars.schemas import closed

# JSON as Python writes it, which is how models have seen most of it. If blanks were free, small models would write
# them until their answer is full; and so the separators need no thought, and are drafted without a draft model.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def json_rule(schema: Any) -> str:
    """Return the symbol for JSON by a schema."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    return f"%json {json.dumps({**closed(schema), 'x-guidance': JSON_STYLE}, ensure_ascii=False)}"


@dataclass(slots=True)
class Spelling:
    """Spells texts for a tokenizer whose special tokens are `special`, by their text.

    Rules that a spelling needs are collected in `rules`, and terminals of others in `terminals`.
    """

    special: Mapping[str, int]
    rules: dict[str, str] = field(default_factory=dict)
    terminals: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> str:
        """Return the symbols that stand for a text; nothing for an empty one."""
        parts = re.split(f"({'|'.join(map(re.escape, self.special))})", text) if self.special else [text]
        return " ".join(self._part(part) for part in parts if part)

    def up_to(self, end: str) -> str:
        """Return the symbols for any text up to a mark, and the mark. The mark is not in the text."""
        if any(mark in end for mark in self.special):
            return f"TEXT {self(end)}"
        rule = f"TEXT {self(end)}"
        known = [name for name, made in self.rules.items() if made == rule]
        name = known[0] if known else f"up_to_{len(self.rules)}[lazy]"
        self.rules[name] = rule
        return name.removesuffix("[lazy]")

    def in_json(self, grammar: TextGrammar) -> str:
        """Return the symbols for a text as a JSON string. Raise GrammarError."""
        return f'"\\"" {self._whole(grammar, in_json=True)} "\\""'

    def in_marks(self, grammar: TextGrammar, end: str) -> str:
        """Return the symbols for a text up to a mark, and the mark. Raise GrammarError."""
        whole = f"{self._whole(grammar, in_json=False)} {self(end)}"
        if any(mark in end for mark in self.special) or not self.terminals:
            return whole
        name = f"marked_{len(self.rules)}"
        self.rules[f"{name}[lazy]"] = whole
        return name

    def _whole(self, grammar: TextGrammar, *, in_json: bool) -> str:
        prefix = f"G{len(self.terminals)}_"
        terminals = grammar.terminals(prefix, in_json=in_json)
        if terminals is not None:
            self.terminals.append(terminals)
            return f"{prefix}START"
        name = f"nested_{len(self.rules)}"
        self.rules[name] = f"%lark {{\n{grammar.rules(in_json=in_json)}\n}}"
        return name

    def _part(self, text: str) -> str:
        token = self.special.get(text)
        return json.dumps(text, ensure_ascii=False) if token is None else f"<[{token}]>"
