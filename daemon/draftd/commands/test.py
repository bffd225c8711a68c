"""`draftd test`: one generation from a server, step by step, with an exit code for scripts."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.text import Text

from draftd.commands.shared import StateDir, complete_profile, make_client, make_server, resolve
from draftd.console import err, out
from draftd.ops import smoke
from draftd.ops.generation import OpenAIServer


def smoke_test(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PROFILE",
            help="Name or part of it; default: the default model.",
            autocompletion=complete_profile,
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Any OpenAI-compatible server; its key is taken from OPENAI_API_KEY.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What to ask.")] = smoke.PROMPT,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0: the likeliest token each time.")] = 0.0,
    state_dir: StateDir = None,
) -> None:
    """Test a server: whether it answers, which model it has, how it generates, and how fast.

    Exit code 0: all is well; 1: it failed; 3: no daemon is running.

    Example: draftd test balanced
    """
    server = OpenAIServer(url, os.environ.get("OPENAI_API_KEY", "")) if url else make_server(state_dir)
    with err.busy(f"asking {server.root}"):
        models = server.models()
    _say("server", f"{server.root} answers")
    model = smoke.choose(name or "", models) if url else server.resolve(resolve(make_client(state_dir), name))
    row = server.worker(model)
    _say("model", smoke.describe_model(models, model, row))
    request = smoke.ChatRequest(model, prompt, max_tokens, temperature, smoke.honest_drafters(row))
    with err.busy("waiting for the first token"):
        smoke.warm_up(server, request)
    _say("prompt", prompt)
    out.piece("\n")
    result = smoke.run(server, request, row, lambda piece: out.piece(piece.text))
    out.piece("\n\n")
    _report(result)


def _report(result: smoke.SmokeResult) -> None:
    made = result.generation
    guess = "" if made.counted else " (counted by events: the server does not say)"
    _say("speed", f"{made.tokens_per_second:.1f} tokens/s: {made.tokens} in {made.seconds:.2f} s{guess}")
    _say("first token", f"after {made.first_token:.2f} s")
    _say("acceptance", smoke.describe_acceptance(result))
    if made.finish_reason == "length":
        _say("end", "cut at --max-tokens")


def _say(title: str, text: str) -> None:
    out.say(Text(f"{title:<12}", style="bold"), Text(text))
