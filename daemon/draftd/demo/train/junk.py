"""Text that has nothing to do with the chat: breadth for the tokenizer, long irrelevant system turns.

It is taken from the Python installation that runs the training (doc strings, signatures) and from the
licence texts of the machine. None of it is shipped, and no model is trained to continue it.
"""

import importlib
import inspect
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

MODULES = """
argparse asyncio ast base64 bisect calendar codecs collections configparser contextlib csv datetime
decimal difflib dis email enum fractions functools getpass glob gzip hashlib heapq html http.client
http.server inspect io ipaddress itertools json locale logging mailbox math mimetypes multiprocessing
netrc operator os pathlib pickle platform plistlib pprint queue random re sched secrets selectors shelve
shlex shutil signal smtplib socket sqlite3 ssl statistics string subprocess sysconfig tarfile tempfile
textwrap threading time timeit tokenize traceback turtle types typing unittest urllib.parse
urllib.request uuid venv warnings wave weakref webbrowser xml.dom zipfile zoneinfo
"""


@cache
def members() -> tuple[tuple[str, Any, str], ...]:
    """Public functions, classes and methods of the standard library, with their doc strings."""
    found: dict[str, tuple[str, Any, str]] = {}
    for name in MODULES.split():
        module = importlib.import_module(name)
        for owner in [module, *(c for _, c in inspect.getmembers(module, inspect.isclass))]:
            for key, value in inspect.getmembers(owner, callable):
                doc = inspect.getdoc(value)
                if doc and len(doc) > 60 and not key.startswith("_"):
                    found.setdefault(f"{name}.{key}", (key, value, doc))
    return tuple(found[key] for key in sorted(found))


@cache
def paragraphs() -> tuple[str, ...]:
    """Paragraphs of doc strings and of licence texts, 40 to 1,200 characters each."""
    texts = [doc for _, _, doc in members()]
    licences = sorted(Path("/usr/share/common-licenses").glob("*"))
    texts += [path.read_text(errors="replace") for path in licences if path.is_file()]
    parts = [part.strip() for text in texts for part in text.split("\n\n")]
    return tuple(part for part in parts if 40 < len(part) < 1200 and part.isascii())


@cache
def tools() -> tuple[str, ...]:
    """Made-up tool definitions in the shape that clients send, as compact JSON lines."""
    return tuple(tool_json(name, value, doc) for name, value, doc in members())


def tool_json(name: str, value: Any, doc: str) -> str:
    """Describe a function of the standard library as if it were a tool."""
    try:
        names = [n for n in inspect.signature(value).parameters if n not in ("self", "args", "kwargs")]
    except (TypeError, ValueError):
        names = ["path", "content"]
    rng = random.Random(name)
    kinds = ("string", "number", "boolean", "array")
    properties = {
        key: {"type": rng.choice(kinds), "description": f"The {key} to use for {name}"} for key in names
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": names[:2],
        "additionalProperties": False,
    }
    function = {"name": name, "description": doc[:600], "parameters": schema}
    return json.dumps({"type": "function", "function": function}, separators=(",", ":"), ensure_ascii=False)


def prose(rng: random.Random, size: int) -> str:
    """About `size` characters of irrelevant text, paragraph by paragraph."""
    parts: list[str] = []
    while sum(map(len, parts)) < size:
        lead = rng.choice(("", "", "", "# ", "- ", "- ", "IMPORTANT: ", "1. "))
        parts.append(lead + rng.choice(paragraphs()))
    return "\n\n".join(parts)[:size]


def some_tools(rng: random.Random, size: int) -> list[str]:
    """Tool definitions of about `size` characters together, at least one."""
    chosen = [rng.choice(tools())]
    while sum(map(len, chosen)) < size:
        chosen += [rng.choice(tools())]
    return chosen


def words(rng: random.Random, count: int) -> str:
    """A few consecutive words of irrelevant text, for questions that nobody has learnt."""
    text = rng.choice(paragraphs()).split()
    start = rng.randrange(max(1, len(text) - count))
    return " ".join(text[start : start + count]).strip("`.,:;()")
