"""`draftd prompts`, `draftd init` and `draftd pull`: what to set up before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from draftd.commands.shared import ProfileArguments, ProfilesDir, complete_prompt
from draftd.console import out
from draftd.errors import ConfigError, DraftdError
from draftd.hub import is_local
from draftd.ops.hosts import pull as pull_on_hosts
from draftd.ops.init import KINDS, carry_out, plan_copies, settings_text, write_settings
from draftd.ops.pull import download, names_at_hub
from draftd.profile_files import load_for
from draftd.profiles import Profile, select
from draftd.prompt_files import Prompt, find_prompts
from draftd.settings import Settings, load_settings, shipped_dir
from draftd.settings_file import config_dir, settings_file


def prompts(
    name: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Print this prompt.", autocompletion=complete_prompt),
    ] = None,
    profiles: ProfilesDir = None,
) -> None:
    """List the system prompts and which profile uses which, or print one.

    A profile names one as `system_prompt`; its `system_prompt_mode` says what happens to a client's own.

    Example: draftd prompts expert
    """
    settings = load_settings(profiles=profiles)
    loaded = load_for(settings).profiles.values()
    found = find_prompts(settings.prompt_dirs(), loaded)
    if name is None:
        out.show(_prompt_table(found))
        out.say('A profile uses one with: system_prompt = "NAME"')
        return
    for prompt in found:
        if prompt.name == name.removesuffix(".txt"):
            out.data(prompt.text)
            return
    raise ConfigError(f"there is no prompt '{name}'; there are: {', '.join(p.name for p in found)}")


def _prompt_table(found: list[Prompt]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("prompt", "words", "used by (mode)", "folder"):
        table.add_column(title, overflow="fold")
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
    """Copy the profiles and prompts to your config folder, where you can edit them, and write a settings file.

    From then on 'draftd up' reads the profiles there. No file that you edited is touched without --force.

    Example: draftd init
    """
    folder = config_dir()
    shipped = {kind: shipped_dir(kind) for kind in KINDS}
    for copy in plan_copies(shipped, folder):
        done = carry_out(copy, force=force)
        out.say(f"{copy.target}: {done}")
    out.say(f"{settings_file()}: {write_settings(settings_file(), settings_text(Settings.model_fields))}")
    out.say(
        f"'draftd up' reads {folder} from now on, and applies changes to profiles and prompts there at once",
    )


def pull(
    names: ProfileArguments = None,
    hosts: Annotated[
        bool,
        typer.Option("--hosts", help="Also on the other machines of profiles that are split over several."),
    ] = False,
    profiles: ProfilesDir = None,
) -> None:
    """Download the models of profiles before they first start; without a name, of those that start by themselves.

    Example: draftd pull balanced
    """
    settings = load_settings(profiles=profiles)
    chosen = select(load_for(settings), names or []).profiles.values()
    wanted = names_at_hub(profile for profile in chosen if names or profile.autostart)
    for name in wanted:
        out.say(f"{name} …")
        out.say(f"  is in {download(name)}")
    if hosts:
        _pull_elsewhere([profile for profile in chosen if names or profile.autostart])
    left_out = [profile.name for profile in chosen if not set(names_at_hub([profile])) <= set(wanted)]
    if left_out:
        out.say(
            f"left out, as they start only when asked: {', '.join(left_out)}; 'draftd pull PROFILE' gets one"
        )
    elif not chosen:
        out.say("nothing to download: there is no profile")
    elif not wanted:
        out.say("nothing to download: every model is a folder on this machine")


def _pull_elsewhere(chosen: Sequence[Profile]) -> None:
    failed = []
    for profile in chosen:
        if is_local(profile.model):
            continue
        for host, why in pull_on_hosts(profile):
            out.say(f"{profile.model} on {host}: {why or 'it is there'}")
            failed += [host] if why else []
    if failed:
        raise DraftdError(
            f"the models could not be downloaded on {', '.join(failed)}; 'draftd doctor' finds out why"
        )
