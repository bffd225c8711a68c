"""`draftd bench` and `draftd test` as a user types them, on the real server with the demo pair."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.demo import DRAFT, TARGET
from tests.forked import run
from tests.test_cli import up

PAIR = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = 3\n'


@pytest.mark.real
def test_a_small_bench_of_the_demo_pair(tmp_path: Path) -> None:
    chart = tmp_path / "bench.svg"
    options = ("--draft", "3", "--draft", "5", "--runs", "1", "--max-tokens", "8", "--json-lines")
    done = run("bench", "--demo", *options, "--chart", str(chart), limit=120)
    assert done.returncode == 0, done.stderr
    *progress, last = map(json.loads, done.stdout.splitlines())
    assert {line["event"] for line in progress} == {"progress"}
    assert [line["done"] for line in progress][-24:] == list(range(1, 25))
    assert {"doing": "warming up", "done": 0, "total": 24}.items() <= progress[-25].items()
    assert len(progress) == len({json.dumps(line) for line in progress})
    assert last["event"] == "report"
    body = last["report"]
    assert (body["model"], body["draft_model"]) == (str(TARGET), str(DRAFT))
    assert len(body["cells"]) == 4 * 2 * 3
    for cell in body["cells"]:
        drafting = cell["variant"] != "no drafting"
        assert cell["speed"]["median"] > 0
        if cell["variant"] != "auto":  # which need not draft
            assert (cell["acceptance"] is not None) is drafting
        assert (cell["speed_up"] is not None) is drafting
    proposed = [sample["proposed"] for sample in body["samples"] if sample["variant"] == "5 (balanced)"]
    assert all(5 <= number <= 8 * 5 for number in proposed)
    assert [line.split(":")[0] for line in body["verdict"]][:4] == ["code", "prose", "chat", "overall"]
    assert ET.parse(chart).getroot().tag.endswith("svg")


@pytest.mark.real
def test_the_test_of_a_drafting_profile_tells_its_acceptance(tmp_path: Path) -> None:
    with up(tmp_path, "demo", profile=PAIR) as daemon:
        done = daemon.run("test", "demo", "--prompt", "What is a draft model?", "--max-tokens", "40")
    assert done.returncode == 0, done.stderr
    answer = done.stdout.split("What is a draft model?\n")[1].split("\nspeed")[0]
    assert len(answer.split()) > 10
    told = re.search(r"acceptance +(\d+)% \((\d+) of (\d+) draft tokens accepted\)", done.stdout)
    assert told is not None
    assert 0 < int(told[2]) <= int(told[3])
    assert re.search(r"speed +[\d.]+ tokens/s: \d+ in [\d.]+ s\n", done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--demo", "balanced"), "--demo measures the built-in models: name no profile with it"),
        (("nope",), "'nope' fits no profile"),
        (("--json", "--markdown"), "the result has one form: --json, --json-lines or --markdown"),
        (("--demo", "--chart", "/no/where/c.svg"), "there is no folder /no/where for the chart"),
    ],
)
def test_what_cannot_be_measured_is_bad_input(words: tuple[str, ...], message: str) -> None:
    done = run("bench", *words)
    assert (done.returncode, message in done.stderr) == (2, True)


@pytest.mark.parametrize("verb", ["test", "bench", "doctor"])
def test_the_help_of_each_verb_has_an_example(verb: str) -> None:
    assert f"Example: draftd {verb}" in CliRunner().invoke(app, [verb, "--help"]).stdout
