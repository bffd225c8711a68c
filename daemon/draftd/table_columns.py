"""Which columns of a table there is room for. Pure.

A table that is too wide loses whole columns, the least important first: a figure that is cut in two is worse than
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len


def fitting(
    rows: Sequence[Mapping[str, str]], ranks: Mapping[str, int], width: int, *, beside: int = 0
) -> list[str] | None:
    """The columns that fit into `width`; None if not even those of rank 0 do.

    `ranks` has all columns in their order, and how soon each may be left out: the highest first. Two spaces follow
    each; `beside` is the width that the table takes besides.
    """
    widths = {
        title: max(cell_len(text) for text in (title, *(row[title] for row in rows))) + 2 for title in ranks
    }
    titles = list(ranks)
    while sum(widths[title] for title in titles) + beside > width:
        last = max(titles, key=ranks.__getitem__)
        if not ranks[last]:
            return None
        titles.remove(last)
    return titles
