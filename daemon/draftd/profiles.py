"""Profiles: each says under which name clients ask for a model, and how it is served. `profile_files` reads them.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from draftd.errors import ConfigError
from draftd.profile_tables import (
    MAX_SECONDS,
    Distributed,
    HealthPolicy,
    Limits,
    RequestDefaults,
    RestartPolicy,
    ServerFlags,
    Table,
)
from draftd.protocol import LOOKUP_DRAFTER, MAX_DRAFT_TOKENS, MODEL_DRAFTER, PROFILE_NAME

MAX_DRAFTED_AT_ONCE, MAX_BATCHED_AT_ONCE = 4, 8  # requests at one worker, where a profile does not say
MAX_AUTO_DRAFT = 8  # tokens per round that "auto" proposes at most, where a profile does not say
MIN_PAYING_ACCEPTANCE = 0.6  # below this acceptance rate drafting rarely pays
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


def _name(value: str) -> str:
    """Names end up in URLs, file names and labels: letters, digits, '.', '_' and '-' only."""
    if not PROFILE_NAME.fullmatch(value) or ".." in value:
        raise ValueError(
            "a name begins with a letter or digit, and has up to 100 letters, digits, '.', '_' and '-', but no '..'"
        )
    return value


def _alias(value: str) -> str:
    if not _ALIAS.fullmatch(value) or ".." in value:
        raise ValueError(
            "an alias begins with a letter or digit, and has up to 100 letters, digits, "
            "'.', '_', ':', '/' and '-', but no '..'"
        )
    return value


def _model(value: str) -> str:
    if not value.strip() or "\0" in value or value.startswith("-"):
        raise ValueError("a model is a folder or a name like 'mlx-community/Qwen2.5-3B-Instruct-4bit'")
    return value


def _draft_length(value: object) -> object:
    # In place of a union's own checks, which would report two faults for one value.
    if value != "auto" and not (type(value) is int and 1 <= value <= MAX_DRAFT_TOKENS):
        raise ValueError(f"must be a whole number from 1 to {MAX_DRAFT_TOKENS}, or 'auto'")
    return value


def _acceptance_pattern(value: str) -> str:
    try:
        groups = re.compile(value).groupindex.keys()
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if not {"accepted", "proposed"} <= groups:
        raise ValueError("needs the groups (?P<accepted>[0-9]+) and (?P<proposed>[0-9]+)")
    return value


DraftLength = Annotated[int | Literal["auto"], BeforeValidator(_draft_length)]
PlainName = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
ModelName = Annotated[str, AfterValidator(_model)]
AcceptancePattern = Annotated[str, AfterValidator(_acceptance_pattern)]


class Profile(Table):
    """One profile file."""

    name: PlainName = Field(description="the model name that clients ask for")
    model: ModelName = Field(
        description="hub name or folder of the target model (`~`; `./` is beside the profile)"
    )
    draft_model: ModelName | None = Field(None, description="the same for the draft model")
    num_draft_tokens: DraftLength | None = Field(
        None, description="tokens proposed per round; `auto` tunes itself; mlx_lm's own 3 if left out"
    )
    max_draft_tokens: int | None = Field(
        None, ge=1, le=MAX_DRAFT_TOKENS, description="the most that `auto` proposes per round; 8 if left out"
    )
    drafters: tuple[Literal["lookup", "model"], ...] | None = Field(
        None,
        strict=False,
        description="what may draft: `lookup` (what followed the same words in the prompt or an old answer) and "
        "`model`; both if left out; without a `draft_model` none, unless `lookup` is named",
    )
    adapter_path: ModelName | None = Field(None, description="folder of adapter weights")
    aliases: tuple[Alias, ...] = Field((), strict=False, description="further names")
    port: int | None = Field(None, ge=1, le=65535, description="a fixed port; else the next free one")
    autostart: bool = Field(True, description="start with the daemon, not with the first request")
    idle_timeout: float = Field(
        0,
        ge=0,
        le=MAX_SECONDS,
        description="seconds without a request after which the worker sleeps; the next one wakes it",
    )
    pin: bool = Field(False, description="the worker never sleeps to make room for another one")
    share_engine: bool | None = Field(
        None,
        description="one worker for all profiles that say so and differ only per request; else the setting decides",
    )
    system_prompt: PlainName | None = Field(None, description="a file of `prompts/`, without `.txt`")
    system_prompt_mode: Literal["default", "prepend", "replace", "off"] = Field(
        "default", description="`default`: if the client sends none; `prepend`; `replace`; `off`"
    )
    command: tuple[str, ...] = Field(
        (), strict=False, description="another OpenAI-compatible server, with `{port}` and `{model}`"
    )
    native: tuple[Literal["messages", "count_tokens", "responses"], ...] = Field(
        (),
        strict=False,
        description="what the `command` speaks itself besides chat and text completions: such requests reach it as "
        "they are, without the profile's defaults and system prompt",
    )
    acceptance_pattern: AcceptancePattern | None = Field(
        None,
        description="a regular expression for whole lines in which the `command` reports draft tokens, with the "
        "groups `accepted` and `proposed`; without it no line of its log counts",
    )
    defaults: RequestDefaults = RequestDefaults()
    server: ServerFlags = ServerFlags()
    limits: Limits = Limits()
    restart: RestartPolicy = RestartPolicy()
    health: HealthPolicy = HealthPolicy()
    distributed: Distributed | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.num_draft_tokens is not None and self.draft_model is None:
            raise ValueError("num_draft_tokens needs a draft_model")
        if self.max_draft_tokens is not None and not self.auto_draft:
            raise ValueError('max_draft_tokens needs num_draft_tokens = "auto"')
        if "model" in (self.drafters or ()) and self.draft_model is None:
            raise ValueError("the drafter `model` needs a draft_model")
        if self.distributed is not None and self.adapter_path is not None:
            raise ValueError("adapter_path cannot be used with [distributed]: mlx_lm does not split adapters")
        if self.command:
            self._check_command()
        elif self.acceptance_pattern is not None:
            raise ValueError("acceptance_pattern needs a command: draftd's own engine counts by itself")
        elif self.native:
            raise ValueError("native needs a command: draftd translates for its own engine")
        return self

    def _check_command(self) -> None:
        if not any("{port}" in part for part in self.command):
            raise ValueError("command must contain {port}: the daemon chooses the port")
        taken = {
            "draft_model",
            "num_draft_tokens",
            "drafters",
            "adapter_path",
            "server",
            "distributed",
        } & self.model_fields_set
        if taken:
            raise ValueError(
                f"command replaces mlx_lm.server: {', '.join(sorted(taken))} would have no effect"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """The target model, and the draft model if there is one."""
        return (self.model, self.draft_model) if self.draft_model else (self.model,)

    @property
    def upstream_model(self) -> str:
        """The model name that the worker expects: any other would make mlx_lm.server load other weights."""
        return self.model if self.command else "default_model"

    @property
    def files(self) -> tuple[str, ...]:
        """All that mlx_lm loads, models and adapter; nothing for a `command`, whose files we do not know."""
        if self.command:
            return ()
        return (*self.models, self.adapter_path) if self.adapter_path else self.models

    @property
    def all_drafters(self) -> tuple[str, ...]:
        """What drafts for this profile unless a request says otherwise."""
        if self.drafters is not None:
            return self.drafters
        return (LOOKUP_DRAFTER, MODEL_DRAFTER) if self.draft_model else ()

    @property
    def auto_draft(self) -> bool:
        """Whether the draft length tunes itself; `draft_length` is then the longest."""
        return self.num_draft_tokens == "auto"

    @property
    def draft_length(self) -> int:
        """Tokens proposed per round: 0 without a draft model, mlx_lm's own default of 3 if not set."""
        if self.draft_model is None:
            return 0
        if self.num_draft_tokens == "auto":
            return self.max_draft_tokens or MAX_AUTO_DRAFT
        return self.num_draft_tokens or 3

    @property
    def stall_timeout(self) -> float:
        """Seconds. Our engine reports its progress with a long prompt; a foreign server may be silent until its
        first token.
        """
        return self.health.stall_timeout or (600.0 if self.command else 120.0)

    @property
    def concurrency(self) -> int:
        """Requests served at once. A request that is drafted has a cache for the draft model too, so fewer fit.
        Those of a group take turns, whether drafted or not.
        """
        drafts = self.draft_model or self.drafters or self.distributed
        return self.limits.concurrency or (MAX_DRAFTED_AT_ONCE if drafts else MAX_BATCHED_AT_ONCE)


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """The profiles by name, in the order of their names, and the prompts they use. `sharing` says which of them
    share a worker, and why, where draftd has decided it.
    """

    profiles: Mapping[str, Profile]
    prompts: Mapping[str, str] = field(default_factory=dict)
    sharing: str = ""

    def prompt_of(self, profile: Profile) -> str:
        """The text of the profile's system prompt; empty if it has none."""
        return self.prompts.get(profile.system_prompt or "", "")


def select(profiles: ProfileSet, words: Sequence[str]) -> ProfileSet:
    """Only the profiles that `words` name, by name, alias or any unambiguous part of a name; all without words.

    Raises ConfigError naming the candidates.
    """
    if not words:
        return profiles
    chosen = {find_profile(profiles, word).name for word in words}
    return replace(profiles, profiles={n: p for n, p in profiles.profiles.items() if n in chosen})


def find_profile(profiles: ProfileSet, word: str) -> Profile:
    """The one profile that `word` names (see `select`)."""
    everything = list(profiles.profiles.values())
    for profile in everything:
        if word == profile.name or word in profile.aliases:
            return profile
    candidates = [profile for profile in everything if word in profile.name]
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(profile.name for profile in candidates or everything) or "none"
    raise ConfigError(
        f"'{word}' fits {'several profiles' if candidates else 'no profile'}; there are: {names}"
    )
