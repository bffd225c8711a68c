"""The tables of a profile file. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, JsonValue, model_validator

from draftd.protocol import MAX_STOP_LENGTH, MAX_STOP_TEXTS

Bytes = Annotated[ByteSize, Field(gt=0)]
Duration = Annotated[float, Field(gt=0)]


def _bounded(stop: str | list[str]) -> str | list[str]:
    texts = [stop] if isinstance(stop, str) else stop
    if len(texts) > MAX_STOP_TEXTS or not all(0 < len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"must be at most {MAX_STOP_TEXTS} strings of 1 to {MAX_STOP_LENGTH} characters")
    return stop


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
