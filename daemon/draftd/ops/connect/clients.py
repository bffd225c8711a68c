"""What to type or paste for the clients that people use, with this daemon's address and models filled in. Pure.

The forms are those of each project's documentation in November 2026.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping

from draftd.ops.connect.offer import KEY_VARIABLE, Offer
from draftd.ops.connect.opencode import opencode_config

Render = Callable[[Offer, str], str]


def client_settings(offer: Offer) -> dict[str, str]:
    """For each client: what to type, or what to put into its config."""
    key = f"${KEY_VARIABLE}" if offer.needs_key else "local"
    return {name: _told_whom_to_trust(name, offer) + show(offer, key) for name, show in CLIENTS.items()}


def _told_whom_to_trust(name: str, offer: Offer) -> str:
    """A comment on what a client's environment needs besides, where the daemon's certificate signs itself."""
    if not offer.to_trust or name not in TRUST:
        return ""
    mark = "//" if name in {"opencode", "zed"} else "#"
    return f"{mark} in its environment: {TRUST[name]}={shlex.quote(offer.to_trust)}\n"


def _curl(offer: Offer, key: str) -> str:
    body = {"model": offer.default, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    bearer = f'-H "Authorization: Bearer {key}" ' if key.startswith("$") else ""
    trusted = f"--cacert {shlex.quote(offer.to_trust)} " if offer.to_trust else ""
    return (
        f"curl -N {trusted}{offer.base_url}/chat/completions -H 'Content-Type: application/json' {bearer}\\\n"
        f"  -d '{json.dumps(body)}'"
    )


def _in_python(package: str, imports: str, key: str) -> tuple[str, str]:
    """The first lines of a script, and its key."""
    shown = f'os.environ["{key[1:]}"]' if key.startswith("$") else f'"{key}"'
    first = "import os\n\n" if key.startswith("$") else ""
    return f"# pip install {package}\n{first}{imports}\n\n", shown


def _openai(offer: Offer, key: str) -> str:
    head, shown = _in_python("openai", "from openai import OpenAI", key)
    return (
        f'{head}client = OpenAI(base_url="{offer.base_url}", api_key={shown})\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{offer.default}", messages=[{{"role": "user", "content": "Hello!"}}]\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )


def _anthropic(offer: Offer, key: str) -> str:
    head, shown = _in_python("anthropic", "from anthropic import Anthropic", key)
    return (
        f'{head}client = Anthropic(base_url="{_without_version(offer)}", api_key={shown})\n'
        "message = client.messages.create(\n"
        f'    model="{offer.default}", max_tokens=1000, messages=[{{"role": "user", "content": "Hello!"}}]\n'
        ")\n"
        "print(message.content[0].text)"
    )


def _openai_agents(offer: Offer, key: str) -> str:
    names = "Agent, OpenAIResponsesModel, Runner, set_tracing_disabled"
    imports = f"from agents import {names}\nfrom openai import AsyncOpenAI"
    head, shown = _in_python("openai-agents", imports, key)
    return (
        f"{head}set_tracing_disabled(True)  # traces would go to OpenAI\n"
        f'client = AsyncOpenAI(base_url="{offer.base_url}", api_key={shown})\n'
        f'model = OpenAIResponsesModel(model="{offer.default}", openai_client=client)\n'
        'agent = Agent(name="Assistant", instructions="Be brief.", model=model)\n'
        'print(Runner.run_sync(agent, "Hello!").final_output)'
    )


def _opencode(offer: Offer, key: str) -> str:
    first = "// ~/.config/opencode/opencode.jsonc; 'draftd opencode --write' merges it into yours\n"
    return first + json.dumps(opencode_config(offer), indent=2)


def _without_version(offer: Offer) -> str:
    """The address for Anthropic's clients, which add the version themselves."""
    return offer.base_url.removesuffix("/v1")


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
        "ANTHROPIC_BASE_URL": _without_version(offer),
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


_NODE, _OPENSSL = "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"  # Bun and Python's HTTP clients read them too
# Where each client looks for a file of certificates to trust.
TRUST: Mapping[str, str] = {
    "openai": _OPENSSL,
    "anthropic": _OPENSSL,
    "openai-agents": _OPENSSL,
    "continue": _NODE,
    "aider": _OPENSSL,
    "zed": _OPENSSL,
    "opencode": _NODE,
    "claude": _NODE,
    "codex": "CODEX_CA_CERTIFICATE",
}
CLIENTS: Mapping[str, Render] = {
    "curl": _curl,
    "openai": _openai,
    "anthropic": _anthropic,
    "openai-agents": _openai_agents,
    "continue": _continue,
    "aider": _aider,
    "zed": _zed,
    "opencode": _opencode,
    "claude": _claude,
    "codex": _codex,
}
