"""Which models go into how many ranks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from draftd.demo import TARGET
from draftd.sharded_models import PIPELINE, TENSOR, misfits

LLAMA = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "quantization": {"group_size": 64, "bits": 4},
}
QWEN35 = {"model_type": "qwen3_5", "text_config": {"num_attention_heads": 16, "num_key_value_heads": 2}}


@pytest.mark.parametrize(
    ("config", "ranks", "found"),
    [
        (LLAMA, 2, []),
        (LLAMA, 8, []),
        (LLAMA, 16, ["num_key_value_heads is 8, which cannot be divided by 16"]),
        (
            LLAMA,
            3,
            [
                "num_attention_heads is 32, which cannot be divided by 3",
                "num_key_value_heads is 8, which cannot be divided by 3",
                "intermediate_size is 14336, which cannot be divided by 3",
            ],
        ),
        (
            LLAMA | {"intermediate_size": 11008, "num_key_value_heads": 32},
            8,
            ["intermediate_size (11008) is quantized in groups of 64, which 8 ranks cannot divide"],
        ),
        (LLAMA | {"kv_lora_rank": 512, "num_key_value_heads": 3}, 2, []),
        (QWEN35, 8, []),
        (QWEN35 | {"model_type": "qwen3"}, 8, ["num_key_value_heads is 2, which cannot be divided by 8"]),
        (
            {"text_config": {"num_attention_heads": 4, "linear_num_key_heads": 3}},
            2,
            ["linear_num_key_heads is 3, which cannot be divided by 2"],
        ),
        ({}, 2, []),
        ({"num_attention_heads": "many", "quantization": None}, 2, []),
    ],
)
def test_heads_and_widths_have_to_divide(config: dict[str, Any], ranks: int, found: list[str]) -> None:
    assert misfits(config, ranks, TENSOR) == found


@pytest.mark.fault(143)
def test_the_demo_models_three_heads_are_refused_on_two_ranks() -> None:
    config = json.loads((TARGET / "config.json").read_text())
    assert misfits(config, 2, TENSOR)[0] == "num_attention_heads is 3, which cannot be divided by 2"
    assert misfits(config, 3, TENSOR) == []


def test_a_pipeline_needs_a_layer_for_each_rank() -> None:
    assert misfits(LLAMA, 32, PIPELINE) == []
    assert misfits(LLAMA, 33, PIPELINE) == ["32 layers cannot be spread over 33 ranks"]
