"""`python -m draftd.engine.group <flags of the engine>`: the launcher of a group, whose plan is in DRAFTD_GROUP."""

import asyncio
import os
import sys
import traceback

from draftd.engine import channel, lifeline, records
from draftd.engine.exits import EngineError, end_alike, leave
from draftd.engine.group.launcher import Launcher
from draftd.protocol import EXIT_FAILED, EXIT_REFUSED, GROUP_VARIABLE, GroupPlan, MemoryShare


def main() -> None:
    """Hold lifeline and channel as an engine does, and run the group."""
    records.keep_lines_whole()
    try:
        lifeline.hold(os.environ)
        channel.hold(os.environ)
        plan = _plan()
        outcome = asyncio.run(_run(plan))
    except EngineError as error:
        leave(error.code, str(error))
    except BaseException as error:
        traceback.print_exc()
        leave(EXIT_FAILED, f"ended by {records.describe(error)}")
    os._exit(end_alike(outcome))  # the thread that follows the shares waits for one


def _plan() -> GroupPlan:
    try:
        plan = GroupPlan.parse(os.environ.pop(GROUP_VARIABLE, ""))
    except ValueError as error:
        raise EngineError(EXIT_REFUSED, f"{GROUP_VARIABLE} has no plan of a group: {error}") from error
    if len(plan.members) < 2 or plan.members[0].ssh:
        raise EngineError(EXIT_REFUSED, "a group has two ranks or more, and the first is on this machine")
    return plan


async def _run(plan: GroupPlan) -> int:
    loop = asyncio.get_running_loop()
    launcher = Launcher(plan, sys.argv[1:], channel.secret(), channel.descriptor())

    def obey(share: MemoryShare) -> None:
        loop.call_soon_threadsafe(launcher.take_share, share)

    channel.follow_shares(obey)
    return await launcher.run()


if __name__ == "__main__":
    main()
