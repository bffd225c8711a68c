"""Ready lines for the clients that people use, with the address and the models of this daemon filled in. Pure.

The forms are those of each project's documentation in November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from draftd.ops.connect.opencode import KEY_VARIABLE, Model

Render = Callable[[Sequence[Model], str, str, str], str]


def render(
    models: Sequence[Model], default: str, base_url: str, *, needs_key: bool = False
) -> dict[str, str]:
    """Client -> what to type or to put into its config. `default` names one of `models`."""
    key = f"${KEY_VARIABLE}" if needs_key else "local"
    return {name: show(models, default, base_url, key) for name, show in CLIENTS.items()}


def _curl(models: Sequence[Model], default: str, base_url: str, key: str) -> str:
    body = {"model": default, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    bearer = f'-H "Authorization: Bearer {key}" ' if key.startswith("$") else ""
    return (
        f"curl -N {base_url}/chat/completions -H 'Content-Type: application/json' {bearer}\\\n"
        f"  -d '{json.dumps(body)}'"
    )


def _openai(models: Sequence[Model], default: str, base_url: str, key: str) -> str:
    shown = f'os.environ["{key[1:]}"]' if key.startswith("$") else f'"{key}"'
    first = "import os\n\n" if key.startswith("$") else ""
    return (
        f"# pip install openai\n{first}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key={shown})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{default}", messages=[{{"role": "user", "content": "Hello!"}}]\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def _continue(models: Sequence[Model], default: str, base_url: str, key: str) -> str:
    shown = f"${{{{ secrets.{key[1:]} }}}}" if key.startswith("$") else key
    entries = "".join(
        f"\n  - name: {model.name}\n    provider: openai\n    model: {model.name}\n"
        f"    apiBase: {base_url}\n    apiKey: {shown}\n    roles: [chat, edit, apply]\n"
        f"    capabilities: [tool_use]\n    defaultCompletionOptions:\n      contextLength: {model.context}"
        for model in models
    )
    return f"# ~/.continue/config.yaml\nname: draftd\nversion: 1.0.0\nschema: v1\nmodels:{entries}"


def _aider(models: Sequence[Model], default: str, base_url: str, key: str) -> str:
    return (
        f"export OPENAI_API_BASE={base_url} OPENAI_API_KEY={key}\n"
        f"aider --model openai/{default} --no-show-model-warnings"
    )


def _zed(models: Sequence[Model], default: str, base_url: str, key: str) -> str:
    available = [
        {
            "name": model.name,
            "display_name": model.name,
            "max_tokens": model.context,
            "capabilities": {"tools": True, "images": False},
        }
        for model in models
    ]
    value = "" if key.startswith("$") else f"={key}"
    config = {"openai_compatible": {"draftd": {"api_url": base_url, "available_models": available}}}
    # Zed takes the key from a variable named after the provider.
    first = f"// ~/.config/zed/settings.json; and in Zed's environment {KEY_VARIABLE}{value}\n"
    return f'{first}"language_models": {json.dumps(config, indent=2)}'


CLIENTS: Mapping[str, Render] = {
    "curl": _curl,
    "openai": _openai,
    "continue": _continue,
    "aider": _aider,
    "zed": _zed,
}
