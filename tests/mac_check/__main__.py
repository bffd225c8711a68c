"""`python -m tests.mac_check`: what can only be seen on a Mac, in minutes, as one table to paste into a report.

It leaves the user's own daemon, agent and folders alone: it works in a folder that it removes, with ports and a
launchd label of its own. What the tools of macOS print is kept in --out. Exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import plistlib
import sys
from collections.abc import Sequence
from pathlib import Path

from draftd.ops.launchd import TEMPLATE
from draftd.settings import shipped_dir
from tests.mac_check.agent_checks import AGENT
from tests.mac_check.daemon_checks import DAEMON, MACHINE
from tests.mac_check.results import Result, run_all, table
from tests.mac_check.site import site

CHECKS = (*MACHINE, *DAEMON, *AGENT)


def main(words: Sequence[str]) -> int:
    """Run all checks; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mac_check", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/mac-check"), help="where raw outputs are kept"
    )
    parser.add_argument("--throttle", type=float, default=_throttle(), help=argparse.SUPPRESS)
    parser.add_argument("preset", nargs="*", help="of the demo (default: those that start by themselves)")
    given = parser.parse_args(words)
    results: list[Result] = []
    with site(given.out, tuple(given.preset), given.throttle) as here:
        for result in run_all(CHECKS, here):
            print(f"{result.outcome:>7}  {result.name}: {result.text}", file=sys.stderr, flush=True)
            results.append(result)
    report = table(results)
    (given.out / "table.md").write_text(report + "\n")
    print(report)
    print(f"\nWhat the tools printed is in {given.out}", file=sys.stderr)
    return int(any(result.outcome == "failed" for result in results))


def _throttle() -> float:
    template = plistlib.loads((shipped_dir("launchd") / TEMPLATE).read_bytes())
    return float(template["ThrottleInterval"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
