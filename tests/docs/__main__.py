"""Writes the generated parts of the pages: `python -m tests.docs`."""

from __future__ import annotations

from tests.docs.pages import PAGES
from tests.docs.reference import with_parts

for page in PAGES:
    page.write_text(with_parts(page.read_text("utf-8")), "utf-8")
