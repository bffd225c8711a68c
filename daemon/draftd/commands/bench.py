"""`draftd bench`: what drafting is worth on this machine, by measurement."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from draftd.commands.shared import ProfilesDir, StateDir, complete_profile, settings_where_it_runs
from draftd.console import err, out
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.files import make_private_folder, write_private
from draftd.instance import find_daemon
from draftd.ops.bench.chart import to_svg
from draftd.ops.bench.daemon import Rows, private_daemon
from draftd.ops.bench.plan import Plan, Trial, make_plan, schedule
from draftd.ops.bench.report import (
    SAVED,
    TITLES,
    Report,
    shown_titles,
    summary,
    table,
    to_json,
    to_markdown,
)
from draftd.ops.bench.run import how_busy, make_report, measure
from draftd.ops.generation import OpenAIServer
from draftd.profile_files import load_for
from draftd.profiles import Profile, find_profile
from draftd.settings import Settings

RUNS, QUICK_RUNS = 5, 2
TOKENS, QUICK_TOKENS = 160, 64


def run_bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROFILE",
            help="Whose models to measure (default: the default profile's); further ones are compared with it.",
            autocompletion=complete_profile,
        ),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Measure the built-in demo models.")] = False,
    lengths: Annotated[
        list[int] | None,
        typer.Option(
            "--draft",
            "-d",
            metavar="TOKENS",
            min=1,
            max=64,
            help="Draft tokens per round; repeatable. (default: 3, 5, 7)",
        ),
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help=f"Runs of each cell. (default: {RUNS})")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help=f"Longest answer, in tokens. (default: {TOKENS})")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs, shorter answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    as_lines: Annotated[
        bool, typer.Option("--json-lines", help="Progress, then everything, as lines of JSON.")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the speeds into this file.")
    ] = None,
    profiles: ProfilesDir = None,
    state_dir: StateDir = None,
) -> None:
    """Measure what drafting is worth here: speed, acceptance and time to first token, with and without a draft.

    It loads the target model twice, once without a draft, in a daemon of its own.

    Example: draftd bench --demo --quick --chart bench.svg
    """
    settings = settings_where_it_runs(profiles=profiles, state_dir=state_dir)
    if sum((as_json, as_lines, as_markdown)) > 1:
        raise ConfigError("the result has one form: --json, --json-lines or --markdown")
    if chart is not None and not chart.absolute().parent.is_dir():  # now, not after minutes of work
        raise ConfigError(f"there is no folder {chart.absolute().parent} for the chart")
    plan = make_plan(_profiles(settings, names or [], demo=demo), lengths or [3, 5, 7])
    runs = runs or (QUICK_RUNS if quick else RUNS)
    max_tokens = max_tokens or (QUICK_TOKENS if quick else TOKENS)
    _warn_of_daemon(settings)
    with nullcontext(_progress_lines()) if as_lines else _progress_bar() as tell:
        report = _measured(plan, runs, max_tokens, tell)
    if as_lines:
        out.data(json.dumps({"event": "report", "report": to_json(report)}))
    else:
        _show(report, as_json=as_json, as_markdown=as_markdown)
    try:
        if not demo:
            make_private_folder(settings.state_dir)
            write_private(settings.state_dir / SAVED, json.dumps(to_json(report)))
        if chart is not None:
            chart.write_text(to_svg(report), "utf-8")
    except OSError as error:
        raise DraftdError(f"the result cannot be written: {error}") from error


def _profiles(settings: Settings, names: Sequence[str], *, demo: bool) -> list[Profile]:
    if demo:
        if names:
            raise ConfigError("--demo measures the built-in models: name no profile with it")
        from draftd.demo import DRAFT, TARGET

        return [Profile(name="demo", model=str(TARGET), draft_model=str(DRAFT), num_draft_tokens=5)]
    found = load_for(settings)
    if not found.profiles:
        raise ConfigError(f"there is no profile (*.toml) in {settings.profiles_dir()} to measure")
    first = settings.default_profile
    wanted = names or [first if first in found.profiles else next(iter(found.profiles))]
    return list(
        {profile.name: profile for profile in (find_profile(found, word) for word in wanted)}.values()
    )


def _warn_of_daemon(settings: Settings) -> None:
    with suppress(NotRunningError):
        running = find_daemon(settings.state_dir)
        text = f"a daemon runs (pid {running.pid}): its workers take memory and, when used, speed from this bench"
        err.say(f"{text}; 'draftd down' ends it", style="yellow")


Tell = Callable[[str, int, int], object]  # what is being done, how many are done, and of how many


def _measured(plan: Plan, runs: int, max_tokens: int, tell: Tell) -> Report:
    busy = how_busy()
    trials = schedule(plan.variants, runs)
    count = itertools.count(1)

    def loaded(rows: Rows) -> None:
        tell("loading", sum(row["state"] == "ready" for row in rows), len(plan.workers))

    def done(trial: Trial) -> None:
        what = f"run {trial.run + 1}, {trial.kind}, temperature {trial.temperature:g}"
        tell(what, next(count), len(trials))

    with private_daemon(plan.workers, loaded) as url:
        tell("warming up", 0, len(trials))
        samples = measure(OpenAIServer(url), plan, trials, max_tokens, done)
    return make_report(plan, samples, runs, max_tokens, busy)


def _progress_lines() -> Tell:
    """One line for each change."""
    said = ""

    def tell(doing: str, done: int, total: int) -> None:
        nonlocal said
        line = json.dumps({"event": "progress", "doing": doing, "done": done, "total": total})
        if line != said:
            out.data(line)
        said = line

    return tell


@contextmanager
def _progress_bar() -> Iterator[Tell]:
    what = TextColumn("{task.description:<32}", markup=False)
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def tell(doing: str, done: int, total: int) -> None:
            if total != bar.tasks[0].total:  # loading is over: the remaining time is estimated anew
                bar.reset(task, total=total)
            bar.update(task, description=doing, completed=done)

        yield tell


def _show(report: Report, *, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        out.data(json.dumps(to_json(report), indent=2))
    elif as_markdown:
        out.data(to_markdown(report))
    else:
        for line in summary(report):
            out.say(line)
        out.show(table(report, out.room))
        if left_out := [title for title in TITLES if title not in shown_titles(report, out.room)]:
            out.say(f"no room for {', '.join(left_out)}: --markdown has all", style="dim")
        for sentence in report.verdict:
            out.say(sentence)
