"""Settings of the daemon: command line over DRAFTD_* variables over the settings file over defaults."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from draftd.errors import ConfigError, Problem
from draftd.groups import Groups, checked
from draftd.peer_tables import PeerTable, is_loopback, usable_key
from draftd.profile_tables import MAX_BYTES
from draftd.protocol import PROMPT_CACHE_FOLDER, PromptStore
from draftd.setting_forms import (
    HostNames,
    NameLists,
    OwnKey,
    Peers,
    PortNumber,
    PromptPaths,
    Seconds,
    Size,
    UserPath,
    Words,
    no_bool,
)
from draftd.settings_file import FileSource, config_dir, source_of
from draftd.toml_lines import joined, reason_of

# Of a worker's time to end so much may go into saving prompt caches; then it frees the GPU's memory.
SAVING_SHARE = 0.3


def shipped_dir(kind: str) -> Path:
    """The folder `kind` (profiles, prompts, launchd) that came with draftd."""
    package = Path(__file__).parent
    in_wheel = package / "shipped" / kind
    return in_wheel if in_wheel.is_dir() else package.parent.parent / kind


class Settings(BaseSettings):
    """The settings of the daemon as a whole. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="DRAFTD_", env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", min_length=1, description="address that the proxy listens on")
    port: PortNumber = Field(8080, description="port that the proxy listens on")
    base_port: PortNumber = Field(8000, description="first port for workers; busy ones are skipped")
    profiles: UserPath | None = Field(None, description="folder of profile files")
    state_dir: UserPath = Field(
        default_factory=lambda: platformdirs.user_state_path("draftd"),
        description="folder for the lock, the address of the running daemon, logs and prompt caches",
    )
    default_profile: str = Field(
        "qwen2.5-3b-speculative-balanced",
        min_length=1,
        description="profile that answers a request without a model",
    )
    start: Literal["auto", "all", "default"] = Field(
        "auto",
        description="workers that start with the daemon, of those that may: `auto`: all if they fit comfortably, "
        "else the default profile's",
    )
    memory_budget: Literal["auto"] | Annotated[Size, Field(gt=0)] = Field(
        "auto",
        description='what all workers together may take: "12GB", or `auto`: what a Mac lets its GPU have, three '
        "quarters of the memory elsewhere",
    )
    memory_pressure: Literal["auto", "off"] | UserPath = Field(
        "auto",
        description="where it stands how short the machine is of memory: `auto`: macOS's pressure level, or "
        "Linux's `/proc/pressure/memory`; a file of that form, such as a control group's `memory.pressure`; `off`",
    )
    groups_together: NameLists = Field(
        (),
        description="lists of profiles: one that stands in such lists is in memory only with those of the same "
        "lists, and with those in none. In the file also `together` under `[groups]`",
    )
    groups_apart: Annotated[NameLists, AfterValidator(lambda lists: checked(lists, 2))] = Field(
        (),
        description="lists of profiles, of each of which one is in memory at a time. In the file also `apart` "
        "under `[groups]`",
    )
    max_loads: int = Field(1, ge=1, description="workers that may load their models at the same time")
    cache_preload: PromptPaths = Field(
        (),
        description="files of system prompts that each worker reads while it is idle after its start; a relative "
        "path is looked for beside the settings file. In the file also `preload` under `[cache]`",
    )
    cache_disk: Annotated[Size, Field(ge=0)] = Field(
        ByteSize(5 * 10**9),
        description="what prompt caches that outlive their workers may take on the disk, all together: "
        '"5GB"; 0 is off. In the file also `disk` under `[cache]`',
    )
    share_engine: bool | Literal["auto"] = Field(
        "auto",
        description="one worker, and one copy of the weights, for profiles that differ only per request; `auto`: "
        "where separate ones would not fit comfortably",
    )
    warm_spare: bool = Field(
        False, description="keep a process that has imported mlx_lm, for the next start of a worker"
    )
    keep_awake: bool = Field(
        True, description="a Mac does not fall asleep by itself while requests are open or models load"
    )
    stop_grace: Seconds = Field(10.0, description="time from SIGTERM to SIGKILL when a worker stops")
    drain_timeout: Seconds = Field(30.0, description="time that open requests have to finish at a stop")
    max_body_bytes: int = Field(32 * 2**20, ge=1024, le=MAX_BYTES, description="largest request body")
    max_upload_bytes: int = Field(
        2**30,
        ge=1024,
        le=MAX_BYTES,
        description="largest form or file that is passed on to a `command`; it waits in a file, not in memory",
    )
    keepalive_interval: Seconds = Field(
        10.0, description="silence after which a waiting stream gets a comment"
    )
    connection_timeout: Seconds = Field(
        10.0, description="how long a connection may have no request, or no end of its headers"
    )
    body_timeout: Seconds = Field(30.0, description="time for the body of a request to arrive")
    write_timeout: Seconds = Field(60.0, description="time for a client to take what it is sent")
    api_key: OwnKey | None = Field(None, description="bearer token that clients must send, if set")
    tls_cert: UserPath | None = Field(
        None,
        description="certificate (PEM), with those between it and its authority; with it [https is served]"
        "(peers.md#https), and no plain http",
    )
    tls_key: UserPath | None = Field(
        None, description="its private key (PEM), without a password; else it is in the file of `tls_cert`"
    )
    peers: Peers = Field(
        (), description="other machines to send requests to, [each a `[[peers]]` table](peers.md)"
    )
    discovery_api_key: Annotated[SecretStr, AfterValidator(usable_key)] | None = Field(
        None,
        description="what machines that are found have as their `api_key`. In the file also `api_key` under "
        "`[discovery]`, and so on",
    )
    discovery_ca_file: UserPath | None = Field(
        None, description="certificates (PEM) that those of machines that are found must be signed by, or be"
    )
    discovery_find: bool = Field(
        False,
        description="[find other machines by Bonjour](peers.md#found-by-bonjour), and use them as peers",
    )
    discovery_announce: bool = Field(False, description="let other machines find this one by Bonjour")
    allowed_hosts: HostNames = Field((), description="further names in the Host header to accept")
    allowed_origins: Words = Field((), description="web origins that may call the proxy")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the daemon's own log"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: lines for people, and JSON in a `log_file`"
    )
    log_file: UserPath | None = Field(
        None, description="where the daemon's own log goes instead of stderr; 3 old files of 10 MiB are kept"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, field: ValidationInfo) -> object:
        # Variables have only strings, so that numbers are read from them; true would be read as 1.
        wanted = cls.model_fields[field.field_name or ""].annotation
        return no_bool(value) if wanted in (int, float) else value

    @field_validator("discovery_find")
    @classmethod
    def _trusts_nobody_who_only_says_so(cls, find: bool, others: ValidationInfo) -> bool:
        if find and None in (others.data.get("discovery_api_key"), others.data.get("discovery_ca_file")):
            raise ValueError(
                "whoever is in the network can say that he is a draftd: discovery_api_key is needed, and"
                " discovery_ca_file, by which machines show that they are yours before they are sent anything"
            )
        return find

    @field_validator("discovery_announce")
    @classmethod
    def _can_be_used(cls, announce: bool, others: ValidationInfo) -> bool:
        if announce and (is_loopback(others.data.get("host", "")) or others.data.get("tls_cert") is None):
            raise ValueError("other machines can use it only over https: host and tls_cert have to be set")
        return announce

    @field_validator("discovery_find", "discovery_announce")
    @classmethod
    def _has_the_package(cls, wanted: bool) -> bool:
        if wanted and find_spec("zeroconf") is None:
            raise ValueError("it needs the package zeroconf: install draftd with the extra 'discovery'")
        return wanted

    @field_validator("tls_key")
    @classmethod
    def _has_a_certificate(cls, key: Path | None, others: ValidationInfo) -> Path | None:
        if key is not None and others.data.get("tls_cert") is None:
            raise ValueError("it is the key of a certificate: tls_cert names that")
        return key

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSource(settings_cls)

    @property
    def url(self) -> str:
        """Where clients on this machine reach the daemon: on loopback if it listens on all addresses."""
        return self.url_at(self.own_host)

    @property
    def own_host(self) -> str:
        """The address by which this machine reaches the daemon."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def url_at(self, host: str) -> str:
        """The address of the daemon for those who call this machine `host`."""
        scheme = "http" if self.tls_cert is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def may_have_peers(self) -> bool:
        """Whether requests may go to other machines."""
        return bool(self.peers) or self.discovery_find

    def prompt_store(self) -> PromptStore | None:
        """Where the workers' engines keep prompt caches; None if they should not."""
        if not self.cache_disk:
            return None
        folder = self.state_dir / PROMPT_CACHE_FOLDER
        return PromptStore(str(folder), self.cache_disk, SAVING_SHARE * self.stop_grace)

    def groups(self) -> Groups:
        """Which models may be in memory together."""
        return Groups(self.groups_together, self.groups_apart)

    def profiles_dir(self) -> Path:
        """Where profiles are read: as set, else the user's own, else the shipped ones."""
        if self.profiles is not None:
            return self.profiles
        own = config_dir() / "profiles"
        return own if own.is_dir() else shipped_dir("profiles")

    def prompt_dirs(self) -> tuple[Path, ...]:
        """Where prompts are looked for, in order: beside the profiles, the user's own, the shipped ones."""
        return self.profiles_dir().parent / "prompts", config_dir() / "prompts", shipped_dir("prompts")


def load_settings(**overrides: Any) -> Settings:
    """Settings from all sources; `overrides` come from the command line, None meaning not given.

    Raises ConfigError naming the file and line, the variable or the option of each value that is refused.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = tuple(_problem(detail, given) for detail in joined(error.errors()))
        raise ConfigError("the settings are not valid", problems) from error


def _problem(detail: dict[str, Any], given: dict[str, Any]) -> Problem:
    """Name the source that a refused value came from."""
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if name == "peers" or any(str(key).endswith("api_key") for key in detail["loc"]):
        detail.pop("input", None)  # a secret is never repeated, and an address or JSON may hold one
    in_table = len(detail["loc"]) > 2
    key, known = (str(detail["loc"][2]), PeerTable) if in_table else (name, Settings)
    reason = f"{name}.{key}: {reason_of(detail)}" if in_table else f"{name}: {reason_of(detail)}"
    if detail["type"] == "extra_forbidden" and (
        alike := difflib.get_close_matches(key, known.model_fields, n=1)
    ):
        reason += f"; did you mean {alike[0]}?"
    if name in given:
        return Problem(Path(f"--{name.replace('_', '-')}"), None, reason)
    return source_of(name, reason, detail["loc"])
