"""Verbs for what is there before anything runs: prompts, the user's own copies, the models."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from draftd.commands.shared import Names, Profiles, out
from draftd.errors import ConfigError
from draftd.ops import init as copies
from draftd.ops import prompts as prompt_files
from draftd.ops import pull as hub
from draftd.profile_files import load_dir
from draftd.profiles import select
from draftd.settings import config_dir, load_settings, shipped_dir


def prompts(
    name: Annotated[str | None, typer.Argument(metavar="PROMPT", help="Print this one.")] = None,
    profiles: Profiles = None,
) -> None:
    """List the system prompts and which profile uses which, or print one.

    A profile names one as `system_prompt`; its `system_prompt_mode` says what becomes of a client's own.

    Example: draftd prompts expert
    """
    settings = load_settings(profiles=profiles)
    loaded = load_dir(settings.profiles_dir(), settings.prompt_dirs()).profiles.values()
    found = prompt_files.find_all(settings.prompt_dirs(), loaded)
    if name is None:
        out.print(_prompt_table(found))
        out.print('A profile uses one with: system_prompt = "NAME"', highlight=False)
        return
    for prompt in found:
        if prompt.name == name.removesuffix(".txt"):
            typer.echo(prompt.text)
            return
    raise ConfigError(f"there is no prompt '{name}'; there are: {', '.join(p.name for p in found)}")


def _prompt_table(found: list[prompt_files.Prompt]) -> Table:
    table = Table("prompt", "words", "used by (mode)", "folder", box=box.SIMPLE_HEAD, pad_edge=False)
    for prompt in found:
        words = str(len(prompt.text.split()))
        table.add_row(
            prompt.name, words, Text("\n".join(prompt.used_by) or "–"), Text(str(prompt.file.parent))
        )
    return table


def init(
    force: Annotated[
        bool, typer.Option("--force", help="Replace edited files too; yours stay as *.bak.")
    ] = False,
) -> None:
    """Copy the profiles and prompts to your config folder, to edit them there.

    From then on 'draftd up' reads the profiles there. No file that you edited is touched without --force.

    Example: draftd init
    """
    folder = config_dir()
    shipped = {kind: shipped_dir(kind) for kind in copies.KINDS}
    for copy in copies.plan(shipped, folder):
        done = copies.carry_out(copy, force=force)
        out.print(f"{copy.target}: {done}", highlight=False, soft_wrap=True)
    out.print(
        f"'draftd up' reads {folder} from now on, and takes a change there at once",
        highlight=False,
        soft_wrap=True,
    )


def pull(
    names: Names = None,
    profiles: Profiles = None,
) -> None:
    """Download the models of the profiles, so that the first start need not.

    Example: draftd pull balanced
    """
    settings = load_settings(profiles=profiles)
    chosen = select(load_dir(settings.profiles_dir(), settings.prompt_dirs()), names or []).profiles.values()
    wanted = hub.names(chosen)
    for name in wanted:
        out.print(f"{name} …", highlight=False, soft_wrap=True)
        out.print(f"  is in {hub.pull(name)}", highlight=False, soft_wrap=True)
    if not wanted:
        out.print("nothing to download: every model is a folder on this machine", highlight=False)
