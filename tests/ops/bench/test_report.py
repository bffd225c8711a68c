"""bench_report and bench_chart: the same figures as a table, Markdown, JSON and an SVG file."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from rich.console import Console

from draftd.ops.bench.chart import nice_step, to_svg
from draftd.ops.bench.report import TITLES, Report, short, shown_titles, summary, table, to_json, to_markdown
from draftd.ops.bench.stats import Sample, Spread, cells, standings, verdict
from draftd.ops.doctor.drafting import measured
from draftd.ops.doctor.facts import Facts, Versions
from draftd.profiles import Profile

VARIANTS = ("no drafting", "3 (fast)", "5 (balanced)")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def report() -> Report:
    speeds = {"no drafting": (100.0, 104.0), "3 (fast)": (150.0, 152.0), "5 (balanced)": (50.0, 54.0)}
    samples = [
        Sample(v, kind, temperature, run, 100, 100 / speed, 0.05, *((None, None) if at == 0 else (80, 60)))
        for kind in ("code", "chat")
        for temperature in (0.0, 0.7)
        for at, (v, pair) in enumerate(speeds.items())
        for run, speed in enumerate(pair)
    ]
    return Report(
        at="2026-11-23T18:00:00+00:00",
        machine="Apple <M4> & co, 24 GB",
        versions={"mlx": "0.32.4"},
        model="/models/big",
        draft_model="hub/small",
        runs=2,
        max_tokens=100,
        busy=3.0,
        samples=tuple(samples),
        cells=tuple(cells(samples, VARIANTS)),
        overall=tuple(standings(samples, VARIANTS)),
        verdict=tuple(verdict(samples, VARIANTS)),
    )


def test_the_table_fits_a_terminal_of_80_columns_with_every_figure(report: Report) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(report, 80))
    text = console.export_text()
    assert "…" not in text
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[0] == " ".join(TITLES).split()
    assert lines[2] == ["code", "0", "no", "drafting", "102.0", "101–103", "–", "50", "ms"]
    assert lines[3] == ["3", "(fast)", "151.0", "150–152", "1.48x", "75%", "50", "ms"]
    assert len([line for line in lines if "(balanced)" in line]) == 4


def test_in_a_narrow_terminal_whole_columns_are_left_out_and_no_figure_is_cut(report: Report) -> None:
    for width in (60, 70):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(report, width))
        text = console.export_text()
        assert [title for title in TITLES if title in text] == shown_titles(report, width)
        assert "…" not in text
        assert "5 (balanced)" in text
    assert shown_titles(report, 60) == ["prompts", "temp", "draft tokens", "tokens/s", "speedup", "accepted"]
    assert shown_titles(report, 1000) == list(TITLES)


def test_markdown_has_the_same_rows_and_the_verdict(report: Report) -> None:
    text = to_markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 * 3
    assert {row.count("|") for row in rows} == {len(TITLES) + 1}
    assert "| code | 0 | 3 (fast) | 151.0 | 150–152 | 1.48x | 75% | 50 ms |" in rows
    assert "- overall: 3 (fast) is best: 1.48x the speed of no drafting, 75% accepted." in text


def test_json_holds_every_single_generation(report: Report) -> None:
    body = json.loads(json.dumps(to_json(report)))
    assert len(body["samples"]) == 2 * 2 * 3 * 2
    assert body["samples"][2]["variant"] == "3 (fast)"
    assert body["cells"][1]["speed_up"]["median"] == pytest.approx((1.5 + 152 / 104) / 2)
    assert body["verdict"][0].startswith("code: 3 (fast) is best")


def test_the_doctor_understands_what_was_saved(report: Report) -> None:
    versions = Versions("3.12", "arm64", "Darwin", "15.0", None, None, "")
    profiles = tuple(
        Profile(name=f"p{length}", model="/models/big", draft_model="hub/small", num_draft_tokens=length)
        for length in (3, 5)
    )
    saved = json.loads(json.dumps(to_json(report)))
    found = list(measured(Facts("1", versions, profiles=profiles, bench=saved)))
    assert [finding.what.split(" the")[0] for finding in found] == ["p3: 1.48x", "p5: 0.51x"]
    assert found[1].do == "try 3 (fast) draft tokens: 1.48x"


@pytest.mark.parametrize(("busy", "warned"), [(3.0, False), (60.0, True)])
def test_a_busy_machine_is_told(report: Report, busy: float, warned: bool) -> None:
    said = " ".join(summary(replace(report, busy=busy)))
    assert ("used 60 % of the processors" in said) is warned
    assert "models/big with hub/small on Apple <M4>" in said


@pytest.mark.parametrize(
    ("model", "shown"),
    [("hub/name", "hub/name"), ("/home/me/models/big", "models/big")],
)
def test_a_folder_is_shown_by_its_end(model: str, shown: str) -> None:
    assert short(model) == shown


def test_the_chart_is_valid_svg_with_a_bar_for_each_cell_of_its_height(report: Report) -> None:
    first = replace(report.cells[0], speed=Spread(102.0, 20.0, 190.0))  # far quartiles move no bar
    report = replace(report, cells=(first, *report.cells[1:]))
    root = ET.fromstring(to_svg(report))
    bars = {
        title.text: rect
        for rect in root.iter(f"{SVG}rect")
        if (title := rect.find(f"{SVG}title")) is not None
    }
    assert len(bars) == len(report.cells)
    heights = [
        float(bars[f"code, temperature 0, {variant}: {speed} tokens/s"].attrib["height"])
        for variant, speed in (("no drafting", "102.0"), ("3 (fast)", "151.0"), ("5 (balanced)", "52.0"))
    ]
    assert heights[1] / heights[0] == pytest.approx(151 / 102, rel=0.01)
    assert heights[2] / heights[0] == pytest.approx(52 / 102, rel=0.01)
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "1.48x" in texts
    assert any("Apple <M4> & co" in text for text in texts)


@pytest.mark.parametrize(
    ("rough", "step"), [(1, 1), (1.1, 2), (30, 50), (51, 100), (0.7, 1), (0.02, 0.02), (999, 1000)]
)
def test_ticks_are_round_numbers(rough: float, step: float) -> None:
    assert nice_step(rough) == pytest.approx(step)
