"""The tables of a profile file. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from draftd.protocol import MAX_STOP_LENGTH, MAX_STOP_TEXTS

MAX_BYTES = 1 << 60  # beyond any machine, and still a number that can be divided and printed
Bytes = Annotated[ByteSize, Field(gt=0, le=MAX_BYTES)]
MAX_SECONDS = 10_000_000  # 115 days; the end of what lasts longer may be no date that can be told
Duration = Annotated[float, Field(gt=0, le=MAX_SECONDS)]


def _bounded(stop: str | list[str]) -> str | list[str]:
    texts = [stop] if isinstance(stop, str) else stop
    if len(texts) > MAX_STOP_TEXTS or not all(0 < len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"must be at most {MAX_STOP_TEXTS} strings of 1 to {MAX_STOP_LENGTH} characters")
    return stop


_SSH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%-]{0,252}")  # never an option
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_VARIABLES = ("DRAFTD_", "MLX_RANK", "MLX_HOSTFILE", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR")
FIRST_RANK_PORT = 32323  # mlx.launch's


def _ssh(value: str) -> str:
    if not _SSH.fullmatch(value):
        raise ValueError("is not a host that ssh could be given")
    return value


Stop = Annotated[str | list[str], AfterValidator(_bounded)]


class Table(BaseModel):
    """What all tables of a profile have in common: unknown keys are refused, and a string is never a number."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,  # TOML has them, JSON does not: a worker would refuse every request
        hide_input_in_errors=True,
    )


class RequestDefaults(Table):
    """`[defaults]`: fields filled into a request that does not set them."""

    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: Stop | None = None
    repetition_penalty: float | None = Field(None, ge=0)
    repetition_context_size: int | None = Field(None, ge=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    xtc_probability: float | None = Field(None, ge=0, le=1)
    xtc_threshold: float | None = Field(None, ge=0, le=0.5)
    chat_template_kwargs: dict[str, JsonValue] | None = None


class ServerFlags(Table):
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


class Limits(Table):
    """`[limits]`: memory of the worker in bytes ("8GB"), waiting requests, requests served at once."""

    memory: Bytes | None = Field(None, description='"8GB": a worker above it is drained and restarted')
    queue: int = Field(32, ge=0, description="requests that may wait; more get 429")
    concurrency: int | None = Field(
        None, ge=1, description="requests served at once, as far as memory allows; 4 when drafting, else 8"
    )


class RestartPolicy(Table):
    """`[restart]`: delays in seconds double from `initial_delay` to `max_delay`.

    `max_failures` failures within `window` seconds make the worker `failed`. After a single failure of a worker
    that had been ready, the next start comes after `stable_delay`.
    """

    initial_delay: Duration = Field(1.0, description="seconds before the second start; doubles")
    max_delay: Duration = Field(60.0, description="the longest delay, in seconds")
    max_failures: int = Field(5, ge=1, description="failures within `window` that make the worker `failed`")
    window: Duration = Field(300.0, description="seconds")
    stable_delay: Duration = Field(
        0.1,
        description="seconds before the next start after a single failure of a worker that had been ready",
    )


class HealthPolicy(Table):
    """`[health]`: a check every `interval` seconds; `failures` in a row restart the worker, and so does an open
    request without any progress for `stall_timeout` seconds. A load without any progress ends as a failure after
    `load_stall_timeout` seconds; others may load after a quarter of them.
    """

    interval: Duration = Field(2.0, description="seconds between health checks")
    timeout: Duration = Field(2.0, description="seconds that a check may take")
    failures: int = Field(3, ge=1, description="checks failed in a row that restart the worker")
    start_timeout: Duration = Field(900.0, description="seconds that loading may take")
    load_stall_timeout: Duration = Field(
        120.0, description="seconds that loading may go without any progress"
    )
    stall_timeout: Duration | None = Field(
        None, description="seconds that a request may go without any progress; 120, for a `command` 600"
    )


class Machine(Table):
    """One entry of a hostfile. `local`: it is the machine on which this is read."""

    model_config = ConfigDict(extra="ignore")

    ssh: Annotated[str, AfterValidator(_ssh)]
    ips: tuple[str, ...] = Field((), strict=False)
    rdma: tuple[str | tuple[str, ...] | None, ...] = Field((), strict=False)
    local: bool = False


class Distributed(Table):
    """`[distributed]`: the model is split over several ranks, on this machine or on those of a hostfile."""

    ranks: int | None = Field(None, ge=2, le=64, description="the number of ranks, all on this machine")
    hosts: tuple[Machine, ...] = Field(
        (),
        strict=False,
        description="in place of `ranks`: a hostfile as for mlx.launch, a rank for each entry, this machine first",
    )
    backend: Literal["ring", "jaccl", "mpi"] = Field(
        "ring",
        description="`ring` (TCP), `jaccl` (RDMA over Thunderbolt 5) or `mpi` (Open MPI); the hostfile may say it",
    )
    mode: Literal["tensor", "pipeline"] = Field(
        "tensor",
        description="what a rank holds: `tensor`, a part of each layer; `pipeline`, some of the layers",
    )
    port: int = Field(
        FIRST_RANK_PORT,
        ge=1024,
        le=65000,
        description="the first port that is tried for the ranks to communicate",
    )
    python: str | None = Field(
        None, description="the Python that has draftd on all machines; the daemon's own if left out"
    )
    env: dict[str, str] = Field({}, description="environment of each rank; it overrides the hostfile's")

    @model_validator(mode="after")
    def _is_a_group(self) -> Self:
        if (self.ranks is None) == (not self.hosts):
            raise ValueError("ranks or hosts must be given, but not both")
        for name in self.env:
            if not _VARIABLE.fullmatch(name) or name.startswith(OWN_VARIABLES):
                raise ValueError(f"env cannot set {name}")
        if self.backend == "jaccl" and self.ranks is not None:
            raise ValueError("backend jaccl is for several machines: it needs hosts")
        if self.hosts:
            self._check_hosts()
        return self

    def _check_hosts(self) -> None:
        if len(self.hosts) < 2:
            raise ValueError("hosts names only one machine, and a group needs at least two ranks")
        if not self.hosts[0].local:
            raise ValueError(
                f"hosts begins with {self.hosts[0].ssh}, but must begin with this machine, where requests come in"
            )
        if self.backend == "mpi":
            if named := next((one.ssh for one in self.hosts if "@" in one.ssh), None):
                raise ValueError(
                    f"hosts has {named}, and mpirun takes no user's name: write the machine's alone, and User in"
                    " ~/.ssh/config"
                )
            return
        listening = self.hosts if self.backend == "ring" else self.hosts[:1]
        for machine in listening:
            if not machine.ips:
                raise ValueError(f"hosts has no ips for {machine.ssh}, by which the others could reach it")
        if self.backend == "jaccl":
            for at, machine in enumerate(self.hosts):
                if len(machine.rdma) != len(self.hosts) or machine.rdma[at] is not None:
                    raise ValueError(
                        f"hosts needs an rdma device of {machine.ssh} for each machine, and null for itself; "
                        "mlx.distributed_config writes such a file"
                    )

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.ranks or len(self.hosts)

    @property
    def ranks_here(self) -> int:
        """How many of them are on this machine."""
        return self.ranks or sum(machine.local for machine in self.hosts)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """How ssh reaches the other machines, each once."""
        return tuple(dict.fromkeys(machine.ssh for machine in self.hosts if not machine.local))
