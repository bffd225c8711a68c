"""`draftd chat` and `draftd run`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.text import Text

from draftd.commands.shared import StateDir, complete_profile, make_client, make_server, resolve
from draftd.console import err, hinted, out
from draftd.errors import ConfigError, DraftdError
from draftd.ops.generation import EmptyAnswerError, Generation, OpenAIServer, Piece
from draftd.ops.http import RefusedError
from draftd.protocol import GRAMMAR_DRAFTER, LOOKUP_DRAFTER, MODEL_DRAFTER, RETURN_DRAFTERS_FIELD

LEAVE, ANEW = "/bye", "/new"
STYLES = {MODEL_DRAFTER: "green", LOOKUP_DRAFTER: "cyan", GRAMMAR_DRAFTER: "magenta"}  # of drafted tokens
Message = dict[str, str]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PROFILE",
        help="Default: the default model.",
        autocompletion=complete_profile,
    ),
]
System = Annotated[str | None, typer.Option(help="A system prompt, in place of the profile's own.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=5, help="Default: the profile's own.")]


def chat(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PROFILE", help="Default: the default model.", autocompletion=complete_profile
        ),
    ] = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    state_dir: StateDir = None,
) -> None:
    """Chat with a model; each answer is followed by its speed, and how much of it was drafted.

    Example: draftd chat fast
    """
    server = make_server(state_dir)
    model = resolve(make_client(state_dir), name)
    settings = _settings(model, max_tokens, temperature)
    settings = settings_for(server, model, settings)
    begin = _beginning(system)
    talk = list(begin)
    if out.coloured and settings.get(RETURN_DRAFTERS_FIELD):
        shown = [part for pair in STYLES.items() for part in (" ", pair)]
        out.say(Text.assemble("drafted tokens are coloured:", *shown, style="dim"))
    out.say(f"{model}; {ANEW} starts over, {LEAVE} or Ctrl-D quits, Ctrl-C stops an answer", style="dim")
    while (said := _asked()) is not None:
        if said == ANEW:
            talk = list(begin)
            out.say("a new chat", style="dim")
        elif said:
            talk.append({"role": "user", "content": said})
            talk.append({"role": "assistant", "content": _answered(server, settings, talk)})


def run_prompt(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What to ask; piped input is appended to it."),
    ] = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    state_dir: StateDir = None,
) -> None:
    """Ask once, and print the answer.

    Example: draftd run "What is a draft model?"
    """
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    prompt = "\n\n".join(part for part in (" ".join(words or ()), piped.strip("\n")) if part)
    if not prompt:
        raise ConfigError('there is nothing to ask: draftd run "What is a draft model?", or pipe it in')
    server = make_server(state_dir)
    settings = _settings(resolve(make_client(state_dir), model), max_tokens, temperature)
    talk = [*_beginning(system), {"role": "user", "content": prompt}]
    try:
        made = server.generate(settings | {"messages": talk}, lambda piece: out.piece(piece.text))
    except RefusedError as error:
        raise DraftdError(error.reason or str(error)) from error
    out.piece("" if made.text.endswith("\n") else "\n")
    if err.is_terminal and out.is_terminal:
        err.say(_figures(made), style="dim")


def settings_for(server: OpenAIServer, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a chat, in which the answers say who drafted what. Another server than ours does not say."""
    row = server.worker(model)
    return settings | ({RETURN_DRAFTERS_FIELD: True} if row and row["drafters"] else {})


def _settings(model: str, max_tokens: int | None, temperature: float | None) -> dict[str, Any]:
    given = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    return {key: value for key, value in given.items() if value is not None}


def _beginning(system: str | None) -> list[Message]:
    return [{"role": "system", "content": system}] if system else []


def _asked() -> str | None:
    """What the user types; None at the end. Ctrl-C leaves only the line: it may have come too late."""
    try:
        said = out.ask("> ").strip()
    except EOFError:
        out.piece("\n")
        return None
    except KeyboardInterrupt:
        out.say(f"\n{LEAVE} or Ctrl-D quits", style="dim")
        return ""
    return None if said == LEAVE else said


def _answered(server: OpenAIServer, settings: dict[str, Any], talk: Iterable[Message]) -> str:
    """Show the answer as it comes, and then its figures; returns what came of it."""
    said: list[str] = []
    drafted: Counter[str] = Counter()

    def show(piece: Piece) -> None:
        if not piece.thought:
            said.append(piece.text)
        if piece.drafter:
            drafted[piece.drafter] += 1
        style = STYLES.get(piece.drafter or "", "")
        out.piece(piece.text, f"italic {style}" if piece.thought else style)

    try:
        made = server.generate(settings | {"messages": list(talk)}, show)
    except KeyboardInterrupt:
        out.say("\nthe answer was stopped", style="dim")
    except EmptyAnswerError as error:
        out.say(str(error), style="dim")
    except DraftdError as error:
        why = (isinstance(error, RefusedError) and error.reason) or str(error)
        err.say(hinted(f"\n{why}" if said else why), style="red")
    else:
        out.piece("\n")
        out.say(Text(_figures(made, drafted), style="dim"))
    return "".join(said)


def _figures(made: Generation, drafted: Mapping[str, int] | None = None) -> str:
    """Tokens, speed, first token, drafts and why it ended, as far as the server tells; `drafted` is by drafter."""
    told = made.timings
    speed: Any = told.get("predicted_per_second") or made.tokens_per_second
    parts = [f"{made.tokens} tokens", f"{speed:.1f} tokens/s", f"first after {made.first_token:.2f} s"]
    with suppress(KeyError, TypeError, ZeroDivisionError):
        proposed, accepted = told["draft_n"], told["draft_n_accepted"]
        parts.append(f"{accepted} of {proposed} draft tokens accepted ({accepted / proposed:.0%})")
    if drafted and len(drafted) > 1:
        parts.append("in the text " + " and ".join(f"{drafted[name]} by {name}" for name in sorted(drafted)))
    if made.finish_reason == "length":
        parts.append("cut at the longest answer")
    return ", ".join(parts)
