"""A report as an SVG chart: a group of bars for each kind of prompt and temperature, a bar for each variant, its
height the median speed, a line from the first to the third quartile. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from draftd.ops.bench.report import Report, short
from draftd.ops.bench.stats import Cell

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 70, 50
COLOURS = ("#8a8a8a", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe and Ito's
TICKS = 5  # about that many
NOTE = (
    "bars: medians; lines: first to third quartile; numbers: speedup, the median of comparisons pair by pair"
)


def to_svg(report: Report) -> str:
    """The chart as a file of its own."""
    variants = list(dict.fromkeys(cell.variant for cell in report.cells))
    places = list(dict.fromkeys((cell.kind, cell.temperature) for cell in report.cells))
    step = nice_step(max(cell.speed.high for cell in report.cells) / TICKS)
    top = step * math.ceil(max(cell.speed.high for cell in report.cells) / step)
    scale = (HEIGHT - TOP - BOTTOM) / top
    width = (WIDTH - LEFT - RIGHT) / len(places)
    parts = [_title(report), *_legend(variants), *_grid(step, top, scale)]
    for at, (kind, temperature) in enumerate(places):
        group = [c for c in report.cells if (c.kind, c.temperature) == (kind, temperature)]
        parts += _group(group, variants, LEFT + at * width, width, scale)
        label = f"{kind}, temperature {temperature:g}"
        parts.append(_text(LEFT + (at + 0.5) * width, HEIGHT - BOTTOM + 20, label, "middle"))
    parts.append(_text(LEFT, HEIGHT - 8, NOTE, size=10))
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{inside}\n</svg>\n'
    )


def nice_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not less than `rough`, which must be positive."""
    power = float(10 ** math.floor(math.log10(rough)))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough)


def _title(report: Report) -> str:
    text = (
        f"tokens/s by draft tokens: {short(report.model)} with {short(report.draft_model)}, {report.machine}"
    )
    return _text(LEFT, 24, text, size=14)


def _legend(variants: Sequence[str]) -> list[str]:
    parts = []
    for at, variant in enumerate(variants):
        x = LEFT + at * (WIDTH - LEFT - RIGHT) / len(variants)
        parts.append(f'<rect x="{x:.1f}" y="38" width="12" height="12" fill="{_colour(at)}"/>')
        parts.append(_text(x + 17, 48, variant))
    return parts


def _grid(step: float, top: float, scale: float) -> list[str]:
    parts = []
    for tick in range(round(top / step) + 1):
        y = HEIGHT - BOTTOM - tick * step * scale
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick * step:g}", "end"))
    return parts


def _group(
    group: Sequence[Cell], variants: Sequence[str], left: float, width: float, scale: float
) -> list[str]:
    parts = []
    bar = width * 0.8 / len(variants)
    for cell in group:
        at = variants.index(cell.variant)
        x, base = left + width * 0.1 + at * bar, HEIGHT - BOTTOM
        height = cell.speed.median * scale
        said = (
            f"{cell.kind}, temperature {cell.temperature:g}, {cell.variant}: {cell.speed.median:.1f} tokens/s"
        )
        parts.append(
            f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{bar * 0.9:.1f}" height="{height:.1f}" '
            f'fill="{_colour(at)}"><title>{escape(said)}</title></rect>'
        )
        middle = x + bar * 0.45
        low, high = base - cell.speed.low * scale, base - cell.speed.high * scale
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="black"/>'
        )
        if cell.speed_up:
            parts.append(_text(middle, high - 5, f"{cell.speed_up.median:.2f}x", "middle", 10))
    return parts


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">'
        f"{escape(text)}</text>"
    )
