"""The README's reference of settings and profiles, made from the models. `python -m tests.readme` writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from draftd.profile_tables import HealthPolicy, Limits, RequestDefaults, RestartPolicy, ServerFlags
from draftd.profiles import Profile
from draftd.settings import Settings

README = Path(__file__).parent.parent / "README.md"
HEAD = "| {} | meaning | default |\n|---|---|---|\n"


def sections() -> dict[str, str]:
    """The text of each generated section, by the name in its marks."""
    keys = {name: field for name, field in Profile.model_fields.items() if not _is_table(field)}
    tables: dict[str, type[BaseModel]] = {"limits": Limits, "restart": RestartPolicy, "health": HealthPolicy}
    rows = _rows(keys) + "".join(_rows(model.model_fields, f"[{name}] ") for name, model in tables.items())
    words = f"`[defaults]` takes {_names(RequestDefaults)}. `[server]` takes {_names(ServerFlags)}."
    return {
        "profile keys": HEAD.format("key") + rows + "\n" + _wrapped(words),
        "settings": HEAD.format("setting") + _rows(Settings.model_fields),
    }


def with_sections(text: str) -> str:
    """The README with its generated sections made anew."""
    for name, made in sections().items():
        marks = re.compile(
            rf"(?<=<!-- {name}: made by python -m tests.readme -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL
        )
        text, count = marks.subn(made.replace("\\", r"\\"), text)
        if count != 1:
            raise ValueError(f"the README has {count} sections '{name}'")
    return text


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _rows(fields: dict[str, FieldInfo], prefix: str = "") -> str:
    return "".join(
        f"| `{prefix}{name}` | {field.description} | {_default(name, field)} |\n"
        for name, field in fields.items()
    )


def _default(name: str, field: FieldInfo) -> str:
    if name == "name":  # the loader fills it in
        return "the file's stem"
    value: Any = field.default
    if value is PydanticUndefined:
        return "the platform's" if field.default_factory else "required"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(f"`{name}`" for name in model.model_fields)


def _wrapped(words: str, width: int = 118) -> str:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(with_sections(README.read_text("utf-8")), "utf-8")
