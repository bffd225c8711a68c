"""`draftd doctor`: what is wrong here, why it matters, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from draftd.commands.shared import ProfilesDir, StateDir, settings_where_it_runs
from draftd.console import err, out
from draftd.ops.doctor import diagnose, exit_code
from draftd.ops.doctor.collect import collect, fix
from draftd.ops.doctor.facts import Finding, Severity

MARKS = {
    Severity.FINE: ("✓", "green"),
    Severity.NOTE: ("·", "cyan"),
    Severity.WARNING: ("!", "yellow"),
    Severity.ERROR: ("✗", "bold red"),
}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
    mend: Annotated[
        bool, typer.Option("--fix", help="Fix what is safe to fix, say what was done, then look again.")
    ] = False,
    profiles: ProfilesDir = None,
    state_dir: StateDir = None,
) -> None:
    """Look for what is wrong: versions, ports, models, memory, the daemon, and whether drafting pays.

    Exit code 0: fine, perhaps with notes; 1: a warning; 2: an error.

    Example: draftd doctor
    """
    settings = settings_where_it_runs(profiles=profiles, state_dir=state_dir)
    with err.busy("looking around"):
        facts = collect(settings)
        done = list(fix(facts)) if mend else []
        facts = collect(settings) if done else facts
    for sentence in done or (["nothing to fix"] if mend else []):
        err.say(f"fixed: {sentence}" if done else sentence, style="green")
    findings = diagnose(facts)
    if as_json:
        body = [{**asdict(finding), "severity": finding.severity.name.lower()} for finding in findings]
        out.data(json.dumps(body, indent=2))
    else:
        _show(findings)
    raise typer.Exit(exit_code(findings))


def _show(findings: Iterable[Finding]) -> None:
    for finding in findings:
        mark, style = MARKS[finding.severity]
        out.say(Text(f"{mark} {finding.topic:<9}", style=style), Text(finding.what))
        if finding.why:
            out.say(Text(f"{'':<12}{finding.why}", style="dim"))
        if finding.do:
            out.say(Text(f"{'':<12}→ {finding.do}"))
