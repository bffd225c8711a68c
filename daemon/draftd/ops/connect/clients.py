"""What to type or to paste for the clients that people use, with this daemon's address and models filled in. Pure.

The forms are those of each project's documentation in November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from draftd.ops.connect.offer import KEY_VARIABLE, Offer

Render = Callable[[Offer, str], str]


def client_settings(offer: Offer) -> dict[str, str]:
    """By client: what to type, or what to put into its config."""
    key = f"${KEY_VARIABLE}" if offer.needs_key else "local"
    return {name: show(offer, key) for name, show in CLIENTS.items()}


def _curl(offer: Offer, key: str) -> str:
    body = {"model": offer.default, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    bearer = f'-H "Authorization: Bearer {key}" ' if key.startswith("$") else ""
    return (
        f"curl -N {offer.base_url}/chat/completions -H 'Content-Type: application/json' {bearer}\\\n"
        f"  -d '{json.dumps(body)}'"
    )


def _openai(offer: Offer, key: str) -> str:
    shown = f'os.environ["{key[1:]}"]' if key.startswith("$") else f'"{key}"'
    first = "import os\n\n" if key.startswith("$") else ""
    return (
        f"# pip install openai\n{first}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{offer.base_url}", api_key={shown})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{offer.default}", messages=[{{"role": "user", "content": "Hello!"}}]\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def _continue(offer: Offer, key: str) -> str:
    shown = f"${{{{ secrets.{key[1:]} }}}}" if key.startswith("$") else key
    entries = "".join(
        f"\n  - name: {model.name}\n    provider: openai\n    model: {model.name}\n"
        f"    apiBase: {offer.base_url}\n    apiKey: {shown}\n    roles: [chat, edit, apply]\n"
        f"    capabilities: [tool_use]\n    defaultCompletionOptions:\n      contextLength: {model.context}"
        for model in offer.models
    )
    return f"# ~/.continue/config.yaml\nname: draftd\nversion: 1.0.0\nschema: v1\nmodels:{entries}"


def _aider(offer: Offer, key: str) -> str:
    return (
        f"export OPENAI_API_BASE={offer.base_url} OPENAI_API_KEY={key}\n"
        f"aider --model openai/{offer.default} --no-show-model-warnings"
    )


def _zed(offer: Offer, key: str) -> str:
    available = [
        {
            "name": model.name,
            "display_name": model.name,
            "max_tokens": model.context,
            "capabilities": {"tools": True, "images": False},
        }
        for model in offer.models
    ]
    value = "" if key.startswith("$") else f"={key}"
    config = {"openai_compatible": {"draftd": {"api_url": offer.base_url, "available_models": available}}}
    # Zed takes the key from a variable named after the provider.
    first = f"// ~/.config/zed/settings.json; and in Zed's environment {KEY_VARIABLE}{value}\n"
    return f'{first}"language_models": {json.dumps(config, indent=2)}'


def claude_variables(offer: Offer, key: str) -> dict[str, str]:
    """What Claude Code needs in its environment."""
    context = next(model.context for model in offer.models if model.name == offer.default)
    return {
        "ANTHROPIC_BASE_URL": offer.base_url.removesuffix("/v1"),
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_MODEL": offer.default,
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(context),
    }


def _claude(offer: Offer, key: str) -> str:
    first, second, *others = (f"{name}={value}" for name, value in claude_variables(offer, key).items())
    return f"export {first} {second} \\\n  {' '.join(others)}\nclaude"


_CODEX_PROVIDER = "model_providers.draftd"


def codex_settings(offer: Offer, key: str) -> dict[str, str | int]:
    """What Codex needs, by the names of its settings; a `key` that begins with `$` names a variable."""
    provider = {"name": "draftd", "base_url": offer.base_url, "wire_api": "responses"}
    if key.startswith("$"):
        provider["env_key"] = key[1:]
    return {
        "model": offer.default,
        "model_provider": "draftd",
        "model_context_window": next(model.context for model in offer.models if model.name == offer.default),
        **{f"{_CODEX_PROVIDER}.{name}": value for name, value in provider.items()},
    }


def _codex(offer: Offer, key: str) -> str:
    lines = {name: f"{json.dumps(value)}" for name, value in codex_settings(offer, key).items()}
    top = [f"{name} = {value}" for name, value in lines.items() if "." not in name]
    inner = [f"{name.rpartition('.')[2]} = {value}" for name, value in lines.items() if "." in name]
    return "\n".join(["# ~/.codex/config.toml", *top, "", f"[{_CODEX_PROVIDER}]", *inner])


CLIENTS: Mapping[str, Render] = {
    "curl": _curl,
    "openai": _openai,
    "continue": _continue,
    "aider": _aider,
    "zed": _zed,
    "claude": _claude,
    "codex": _codex,
}
