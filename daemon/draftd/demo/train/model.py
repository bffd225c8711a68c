"""Qwen2 in PyTorch, as small as it can be: just enough to train weights that mlx_lm loads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as f

EPS = 1e-6
THETA = 1_000_000.0


@dataclass(frozen=True)
class Shape:
    """Sizes of a network; `head_dim` is `hidden_size // num_attention_heads`, as in mlx_lm."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding in the half-split layout; x is (batch, heads, time, head_dim)."""
    half = x.shape[-1] // 2
    frequencies = THETA ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = positions[:, None, :, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return f.rms_norm(x, (x.shape[-1],), self.weight, EPS)


class Attention(nn.Module):
    """Causal attention with biases on q, k and v."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        self.size = shape.hidden_size // self.heads
        self.q_proj = nn.Linear(shape.hidden_size, self.heads * self.size)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.size)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.size)
        self.o_proj = nn.Linear(self.heads * self.size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Attend to everything up to the token itself."""
        batch, time, _ = x.shape
        q = self.q_proj(x).view(batch, time, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(batch, time, self.kv_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(batch, time, self.kv_heads, self.size).transpose(1, 2)
        repeat = self.heads // self.kv_heads
        k, v = (rotate(k, positions).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1))
        out = f.scaled_dot_product_attention(rotate(q, positions), k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))


class Mlp(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """SwiGLU."""
        return self.down_proj(f.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.hidden_size)
        self.post_attention_layernorm = Norm(shape.hidden_size)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Attention, then the feed-forward part."""
        x = x + self.self_attn(self.input_layernorm(x), positions)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen2(nn.Module):
    """The whole network with tied embeddings; parameter names are those of the Hugging Face format."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                depth = (2 * shape.num_hidden_layers) ** 0.5 if "o_proj" in name or "down" in name else 1
                fan = 0.02 if "embed" in name else parameter.shape[1] ** -0.5 / depth
                nn.init.normal_(parameter, std=fan)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, positions: Tensor, wanted: Tensor) -> Tensor:
        """Logits at the positions that `wanted` (a boolean mask with the shape of `ids`) selects."""
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, positions)
        return self.norm(x[wanted]) @ self.embed_tokens.weight.T

    def config(self, eos: int) -> dict[str, object]:
        """Contents of `config.json`."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            **asdict(self.shape),
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": EPS,
            "rope_theta": THETA,
            "tie_word_embeddings": True,
            "eos_token_id": eos,
            "bos_token_id": None,
        }

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote."""
        weights = load_file(folder / "model.safetensors")
        self.load_state_dict({key.removeprefix("model."): value.float() for key, value in weights.items()})

    def save(self, folder: Path, eos: int, dtype: torch.dtype) -> None:
        """Write config and weights in the format that mlx_lm loads."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self.config(eos), "torch_dtype": str(dtype).removeprefix("torch.")}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}) + "\n")
        weights = {f"model.{k}": v.detach().to(dtype).contiguous() for k, v in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
