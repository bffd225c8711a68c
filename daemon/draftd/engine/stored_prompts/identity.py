"""What a stored prompt depends on besides its tokens, as one hash: where anything of it differs, nothing fits.

The weights are gigabytes and are not read: the place, names, sizes and times of the models' files stand for them,
and a few bytes of each, since in some images all files have the same time. The rest is the versions of what
computes and of what keeps the caches, the device, and the flags that change what is kept.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import hf_repo_to_path

from draftd.engine.generation.caches import (
    chunked,
    ragged,
    ragged_layers,
    ragged_pass,
    ragged_states,
    recurrent,
    sliding,
)
from draftd.engine.stored_prompts import layers

PACKAGES = ("mlx", "mlx-lm")
OUR_CODE = (
    *(chunked, recurrent, sliding, layers),
    *(ragged, ragged_layers, ragged_pass, ragged_states),  # layers come out of batches, too
)
FLAGS = ("kv_bits", "kv_group_size", "quantized_kv_start", "prefill_step_size", "trust_remote_code")
DEVICE = ("architecture", "device_name")  # what else is told of it may change, as free memory does
SAMPLES, SAMPLE = 5, 4096  # how many of each file, and their bytes
MODEL_FILES = frozenset({".safetensors", ".npz", ".gguf", ".json", ".py"})


def identity_of(model_key: tuple[str, str | None, str | None], flags: Any) -> str:
    """Return the hash for mlx_lm's key of the loaded models (target model, adapter, draft model) and its flags.

    Raise OSError, or what the model hub's library raises, if the files are not to be found.
    """
    device: dict[str, Any] = mx.device_info()
    parts = {
        "packages": [version(name) for name in PACKAGES],
        "code": [hashlib.sha256(_source(module)).hexdigest() for module in OUR_CODE],
        "device": [str(mx.default_device()), *(device.get(name) for name in DEVICE)],
        "flags": [getattr(flags, name, None) for name in FLAGS],
        "models": [None if name is None else files_of(name) for name in model_key],
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def files_of(model: str) -> list[tuple[str, int, int, str]]:
    """Return path, size, time and samples of all files of a model, by its folder or its name on the hub."""
    folder = Path(model)
    if not folder.exists():
        folder = hf_repo_to_path(model)
    return [_facts(path) for path in sorted(folder.resolve().iterdir()) if path.suffix in MODEL_FILES]


def _facts(path: Path) -> tuple[str, int, int, str]:
    status, samples = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        for part in range(SAMPLES):
            file.seek(max(0, status.st_size - SAMPLE) * part // (SAMPLES - 1))
            samples.update(file.read(SAMPLE))
    return str(path), status.st_size, status.st_mtime_ns, samples.hexdigest()


def _source(module: Any) -> bytes:
    return Path(module.__file__).read_bytes()
