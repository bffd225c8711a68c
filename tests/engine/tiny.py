"""A target model and a draft model of random weights, small enough to be made in a second.

The draft model is the target model without its last layers, so that the two agree now and then. The tokens
are single characters: letters, digits and some signs.
"""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

CHARACTERS = [*string.ascii_letters, *string.digits, *".,:;!?-_<>|", "Ġ", "Ċ"]
END = "<|im_end|>"
HIDDEN, HEADS, LAYERS = 64, 2, 3
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
VOCABULARY = [*CHARACTERS, END]


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Write both models; return the folders of the target and of the draft."""
    rng = np.random.default_rng(7)
    weights = {"model.embed_tokens.weight": rng.normal(0, 1, (len(VOCABULARY), HIDDEN))}
    weights["lm_head.weight"] = rng.normal(0, 1, (len(VOCABULARY), HIDDEN))
    weights["model.norm.weight"] = np.ones(HIDDEN)
    for layer in range(LAYERS):
        weights |= _layer(rng, f"model.layers.{layer}", gain=1.5 if layer == 0 else 0.5)
    target = _write(folder / "target", weights, LAYERS)
    shallow = {
        name: array for name, array in weights.items() if ".layers." not in name or ".layers.0" in name
    }
    return target, _write(folder / "draft", shallow, 1)


def _layer(rng: np.random.Generator, name: str, gain: float) -> dict[str, Any]:
    scale = gain / np.sqrt(HIDDEN)
    arrays = {f"{name}.{norm}_layernorm.weight": np.ones(HIDDEN) for norm in ("input", "post_attention")}
    for part in "qkvo":
        arrays[f"{name}.self_attn.{part}_proj.weight"] = rng.normal(0, scale, (HIDDEN, HIDDEN))
        if part != "o":
            arrays[f"{name}.self_attn.{part}_proj.bias"] = rng.normal(0, 0.1, HIDDEN)
    for part in ("gate", "up", "down"):
        arrays[f"{name}.mlp.{part}_proj.weight"] = rng.normal(0, scale, (HIDDEN, HIDDEN))
    return arrays


def _write(folder: Path, weights: dict[str, Any], layers: int) -> Path:
    folder.mkdir(parents=True)
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "mlx"})
    config = {
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-6,
        "vocab_size": len(VOCABULARY),
        "tie_word_embeddings": False,
        "eos_token_id": len(CHARACTERS),
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(BPE({token: n for n, token in enumerate(VOCABULARY)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": END, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
