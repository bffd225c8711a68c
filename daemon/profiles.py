"""Profiles: one TOML file each says under which name a model is asked for, and how it is served.

The models here are pure; `load_dir` reads a folder, and takes all of its files or none.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from daemon.errors import ConfigError, Problem
from daemon.toml_lines import line_of, reason_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_TOML_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")


def _name(value: str) -> str:
    """Names end up in URLs, file names and labels: letters, digits, '.', '_' and '-' only."""
    if not _NAME.fullmatch(value) or ".." in value:
        raise ValueError("a name is made of letters, digits, '.', '_' and '-', without '..'")
    return value


def _alias(value: str) -> str:
    if not _ALIAS.fullmatch(value) or ".." in value:
        raise ValueError("an alias is made of letters, digits, '.', '_', ':', '/' and '-', without '..'")
    return value


def _model(value: str, info: ValidationInfo) -> str:
    """A hub name stays as it is; '~' is expanded, and './' and '../' are taken from the profile's folder."""
    if not value.strip() or "\0" in value or value.startswith("-"):
        raise ValueError("a model is a folder or a name like 'mlx-community/Qwen2.5-3B-Instruct-4bit'")
    if value.startswith("~"):
        return str(Path(value).expanduser())
    if value.startswith(("./", "../")) and info.context:
        return str((info.context["folder"] / value).resolve())
    return value


Name = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
Model = Annotated[str, AfterValidator(_model)]
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


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
    prompt_cache_bytes: int | str | None = None
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

    memory: ByteSize | None = None
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
    """`[health]`: a check every `interval` seconds; `failures` in a row restart the worker."""

    interval: Duration = 2.0
    timeout: Duration = 2.0
    failures: int = Field(3, ge=1)
    start_timeout: Duration = 900.0


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
    idle_timeout: float = Field(0, ge=0, allow_inf_nan=False)
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
    def concurrency(self) -> int:
        """Requests served at once: one when drafting, as mlx_lm.server takes no more then."""
        return self.limits.concurrency or (1 if self.draft_model else 8)


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """What `load_dir` read: the profiles by name, in the order of their names, and the prompts they use."""

    profiles: Mapping[str, Profile]
    prompts: Mapping[str, str] = field(default_factory=dict)

    def prompt_of(self, profile: Profile) -> str:
        """The text of the profile's system prompt; empty if it has none."""
        return self.prompts.get(profile.system_prompt or "", "")


def load_dir(folder: Path, prompt_dirs: Sequence[Path]) -> ProfileSet:
    """Read every *.toml of `folder`. Raises ConfigError with every problem found, and then takes none."""
    if not folder.is_dir():
        raise ConfigError(f"the profiles folder {folder} does not exist; 'draftd up --demo' needs none")
    problems: list[Problem] = []
    loaded: list[tuple[Path, str, Profile]] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            text = path.read_text("utf-8")
            loaded.append((path, text, parse(path, text)))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(path, None, str(error)))
        except ConfigError as error:
            problems.extend(error.problems)
    problems += _clashes(loaded)
    prompts = _read_prompts(loaded, prompt_dirs, problems)
    if problems:
        raise ConfigError(f"the profiles in {folder} are not valid", tuple(problems))
    if not loaded:
        raise ConfigError(f"there is no profile (*.toml) in {folder}")
    return ProfileSet({p.name: p for p in sorted((p for *_, p in loaded), key=lambda p: p.name)}, prompts)


def parse(path: Path, text: str) -> Profile:
    """One profile from the text of its file. Raises ConfigError with file, line and reason."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place else len(text.splitlines())  # "at end of document"
        reason = f"not valid TOML: {_TOML_PLACE.sub('', str(error))}"
        raise ConfigError("a profile is not valid", (Problem(path, line, reason),)) from error
    try:
        return Profile.model_validate({"name": path.stem, **data}, context={"folder": path.parent})
    except ValidationError as error:
        problems = tuple(_problem(path, text, dict(detail)) for detail in error.errors())
        raise ConfigError("a profile is not valid", problems) from error


def _problem(path: Path, text: str, detail: dict[str, Any]) -> Problem:
    loc = detail["loc"]
    key = ".".join(str(part) for part in loc if isinstance(part, str))
    reason = reason_of(detail)
    if detail["type"] == "value_error":  # our own sentences begin with the key that they are about
        loc = (*loc, *reason.split(" ")[0].split("."))
    return Problem(path, line_of(text, loc), f"{key}: {reason}" if key else reason)


def _clashes(loaded: Iterable[tuple[Path, str, Profile]]) -> list[Problem]:
    """Names and aliases share one space, ports another: each may stand in one file only."""
    owner: dict[tuple[str, object], Path] = {}
    problems = []
    for path, text, profile in loaded:
        claims: list[tuple[str, object]] = [("name", profile.name)]
        claims += [("aliases", alias) for alias in profile.aliases]
        claims += [("port", profile.port)] if profile.port else []
        for key, value in claims:
            space = "port" if key == "port" else "name"
            first = owner.setdefault((space, value), path)
            if first is not path or (key == "aliases" and value == profile.name):
                reason = f"{key}: {value} is taken by {first.name}"
                problems.append(Problem(path, line_of(text, (key,)), reason))
    return problems


def _read_prompts(
    loaded: Iterable[tuple[Path, str, Profile]], dirs: Sequence[Path], problems: list[Problem]
) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path, text, profile in loaded:
        name = profile.system_prompt
        if name is None or name in texts:
            continue
        try:
            texts[name] = read_prompt(name, dirs)
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            problems.append(Problem(path, line_of(text, ("system_prompt",)), f"system_prompt: {error}"))
    return texts


def read_prompt(name: str, dirs: Sequence[Path]) -> str:
    """The text of prompt `name` from the first of `dirs` that has it, without its last line break.

    A link is refused: it could put any file of the user into every request.
    """
    for folder in dirs:
        path = folder / f"{name}.txt"
        if path.is_symlink():
            raise ConfigError(f"{path} is a symbolic link; put the text itself there")
        if path.is_file():
            return path.read_text("utf-8").rstrip("\n")
    looked = ", ".join(str(folder) for folder in dirs)
    raise ConfigError(f"there is no {name}.txt in {looked}")
