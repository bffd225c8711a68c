"""Profiles: one TOML file each says under which name a model is asked for, and how it is served.

Pure: profile_files.py reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)

from daemon.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


def _name(value: str) -> str:
    """Names end up in URLs, file names and labels: letters, digits, '.', '_' and '-' only."""
    if not _NAME.fullmatch(value) or ".." in value:
        raise ValueError(
            "a name begins with a letter or digit and has up to 100 of them, '.', '_' and '-', without '..'"
        )
    return value


def _alias(value: str) -> str:
    if not _ALIAS.fullmatch(value) or ".." in value:
        raise ValueError(
            "an alias begins with a letter or digit and has up to 100 of them, "
            "'.', '_', ':', '/' and '-', without '..'"
        )
    return value


def _model(value: str, info: ValidationInfo) -> str:
    """A hub name stays as it is; '~' is expanded, and './' and '../' are taken from the profile's folder."""
    if not value.strip() or "\0" in value or value.startswith("-"):
        raise ValueError("a model is a folder or a name like 'mlx-community/Qwen2.5-3B-Instruct-4bit'")
    if value.startswith("~"):
        try:
            return str(Path(value).expanduser())
        except RuntimeError:
            raise ValueError(f"there is no user {Path(value).parts[0]}") from None
    if (value in (".", "..") or value.startswith(("./", "../"))) and info.context:
        return str((info.context["folder"] / value).resolve())
    return value


Name = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
Model = Annotated[str, AfterValidator(_model)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Duration = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,  # TOML has them, JSON has not: a worker would refuse every request
        hide_input_in_errors=True,
    )


class RequestDefaults(_Table):
    """`[defaults]`: fields filled into a request that does not set them."""

    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    repetition_penalty: float | None = Field(None, ge=0)
    repetition_context_size: int | None = Field(None, ge=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    xtc_probability: float | None = Field(None, ge=0, le=1)
    xtc_threshold: float | None = Field(None, ge=0, le=0.5)
    chat_template_kwargs: dict[str, JsonValue] | None = None


class ServerFlags(_Table):
    """`[server]`: further flags of mlx_lm.server 0.32, with '_' or '-' between the words."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.replace("_", "-"), validate_by_name=True, validate_by_alias=True
    )

    trust_remote_code: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = None
    chat_template: str | None = None
    use_default_chat_template: bool = False
    chat_template_args: dict[str, JsonValue] | None = None
    decode_concurrency: int | None = Field(None, ge=1)
    prompt_concurrency: int | None = Field(None, ge=1)
    prefill_step_size: int | None = Field(None, ge=1)
    prompt_cache_size: int | None = Field(None, ge=0)
    prompt_cache_bytes: Bytes | None = None
    kv_bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    kv_group_size: Literal[32, 64, 128] | None = None
    quantized_kv_start: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _debug_log_holds_prompts(self) -> Self:
        if self.log_level == "DEBUG":
            raise ValueError("log_level DEBUG writes every prompt and answer to the log; use INFO")
        return self


class Limits(_Table):
    """`[limits]`: memory of the worker in bytes ("8GB"), waiting requests, requests served at once."""

    memory: Bytes | None = None
    queue: int = Field(32, ge=0)
    concurrency: int | None = Field(None, ge=1)


class RestartPolicy(_Table):
    """`[restart]`: delays in seconds double from `initial_delay` to `max_delay`.

    `max_failures` failures within `window` seconds make the worker `failed`. The first crash of a worker that
    had been ready for `stable_after` seconds is answered after `stable_delay`.
    """

    initial_delay: Duration = 1.0
    max_delay: Duration = 60.0
    max_failures: int = Field(5, ge=1)
    window: Duration = 300.0
    stable_after: Duration = 60.0
    stable_delay: Duration = 0.1


class HealthPolicy(_Table):
    """`[health]`: a check every `interval` seconds; `failures` in a row restart the worker, and so does an open
    request without any progress for `stall_timeout` seconds.
    """

    interval: Duration = 2.0
    timeout: Duration = 2.0
    failures: int = Field(3, ge=1)
    start_timeout: Duration = 900.0
    stall_timeout: Duration | None = None


class Profile(_Table):
    """One profile file."""

    name: Name
    model: Model
    draft_model: Model | None = None
    num_draft_tokens: int | None = Field(None, ge=1, le=64)
    adapter_path: Model | None = None
    aliases: tuple[Alias, ...] = Field((), strict=False)
    port: int | None = Field(None, ge=1, le=65535)
    autostart: bool = True
    idle_timeout: float = Field(0, ge=0)
    system_prompt: Name | None = None
    system_prompt_mode: Literal["default", "prepend", "replace", "off"] = "default"
    command: tuple[str, ...] = Field((), strict=False)
    defaults: RequestDefaults = RequestDefaults()
    server: ServerFlags = ServerFlags()
    limits: Limits = Limits()
    restart: RestartPolicy = RestartPolicy()
    health: HealthPolicy = HealthPolicy()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.num_draft_tokens is not None and self.draft_model is None:
            raise ValueError("num_draft_tokens needs a draft_model")
        if self.draft_model is not None and self.server.kv_bits is not None:
            raise ValueError("server.kv_bits cannot be used with a draft_model: it corrupts the cache")
        if self.command:
            self._check_command()
        return self

    def _check_command(self) -> None:
        if not any("{port}" in part for part in self.command):
            raise ValueError("command must contain {port}: the daemon chooses the port")
        taken = {"draft_model", "num_draft_tokens", "adapter_path", "server"} & self.model_fields_set
        if taken:
            raise ValueError(
                f"command replaces mlx_lm.server: {', '.join(sorted(taken))} would have no effect"
            )

    @property
    def draft_length(self) -> int:
        """Tokens proposed per round: 0 without a draft model, mlx_lm's own default of 3 if not set."""
        if self.draft_model is None:
            return 0
        return self.num_draft_tokens or 3

    @property
    def stall_timeout(self) -> float:
        """Seconds. Our engine tells of its progress in a long prompt; a foreign server may be silent until its
        first token.
        """
        return self.health.stall_timeout or (600.0 if self.command else 120.0)

    @property
    def concurrency(self) -> int:
        """Requests served at once: one when drafting, as mlx_lm.server takes no more then."""
        return self.limits.concurrency or (1 if self.draft_model else 8)


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """The profiles by name, in the order of their names, and the prompts they use."""

    profiles: Mapping[str, Profile]
    prompts: Mapping[str, str] = field(default_factory=dict)

    def prompt_of(self, profile: Profile) -> str:
        """The text of the profile's system prompt; empty if it has none."""
        return self.prompts.get(profile.system_prompt or "", "")


def select(profiles: ProfileSet, words: Sequence[str]) -> ProfileSet:
    """Only the profiles that `words` name, by name, alias or any unambiguous part of a name; all for no words.

    Raises ConfigError naming the candidates.
    """
    if not words:
        return profiles
    chosen = {find(profiles, word).name for word in words}
    return replace(profiles, profiles={n: p for n, p in profiles.profiles.items() if n in chosen})


def find(profiles: ProfileSet, word: str) -> Profile:
    """The one profile that `word` names (see `select`)."""
    everything = list(profiles.profiles.values())
    for profile in everything:
        if word == profile.name or word in profile.aliases:
            return profile
    candidates = [profile for profile in everything if word in profile.name]
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(profile.name for profile in candidates or everything)
    raise ConfigError(
        f"'{word}' fits {'several profiles' if candidates else 'no profile'}; there are: {names}"
    )
