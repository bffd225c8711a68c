"""The configurations: what makes each architecture of mlx_lm small.

`COMMON` holds what is called alike almost everywhere; an architecture takes of it what its `ModelArgs` knows. `OWN`
holds what it wants besides, or differently. Windows and chunks are 16 tokens, so that texts of 60 go far beyond.
"""

from typing import Any

VOCABULARY = 256
WINDOW = 16
FOUR = {"num_hidden_layers": 4}
SLIDING = FOUR | {"layer_types": ["sliding_attention", "full_attention"] * 2}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
}

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "norm_eps": 1e-6,
    "layer_norm_eps": 1e-6,
    "layer_norm_epsilon": 1e-6,
    "layernorm_epsilon": 1e-6,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_qkv_bias": False,
    "use_qk_norm": True,
    "partial_rotary_factor": 1.0,
    "sliding_window": WINDOW,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    # latent attention
    "kv_lora_rank": 16,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    # recurrent layers
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    # scales
    "embedding_multiplier": 1.0,
    "attention_multiplier": 0.25,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
}


def _text(model_type: str, **own: Any) -> dict[str, Any]:
    """Return the configuration of the language model inside a model that also sees."""
    return COMMON | OWN.get(model_type, {}) | {"model_type": model_type} | own


_KDA = {
    "num_heads": 2,
    "head_dim": 32,
    "short_conv_kernel_size": 4,
    "kda_layers": [1, 3],
    "full_attn_layers": [2, 4],
}
_LONGCAT = {
    "ffn_hidden_size": 64,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 32,
    "zero_expert_num": 1,
    "num_layers": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "zero_expert_type": "identity",
}
_LFM2 = FOUR | {
    "conv_bias": False,
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention"] * 2,
    "full_attn_idxs": [1, 3],
}
_INDEXER = {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 24}
_ROPE_BY_TYPE = {
    kind: {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    for kind in ("full_attention", "sliding_attention")
}
_LLAMA_4_SCALING = {
    "rope_theta": 10000.0,
    "rope_type": "default",
    "type": "default",
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 64,
    "mscale_all_dim": 1.0,
}
_GEMMA_4 = {
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "global_head_dim": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 16,
    "sliding_window_pattern": 2,
    "use_double_wide_mlp": False,
    "num_experts": None,
}
_GEMMA_3N = {
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": VOCABULARY,
    "rope_local_base_freq": 10000.0,
    "final_logit_softcapping": 30.0,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "activation_sparsity_pattern": [0.0] * 6,
    "hidden_size_per_layer_input": 16,
    "altup_num_inputs": 2,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "altup_active_idx": 0,
    "laurel_rank": 8,
    "intermediate_size": [64] * 6,
}

OWN: dict[str, dict[str, Any]] = {
    "afm7": {"hidden_dim": 64, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 4, "num_kv_heads": 2},
    "afmoe": {**SLIDING, "num_dense_layers": 1, "route_scale": 1.0},
    "apertus": {"post_norm": False, "qk_norm": True},
    "baichuan_m1": {**FOUR, "tie_word_embeddings": False, "sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_hybrid": {**FOUR, "layer_group_size": 2, "group_norm_size": 2, "num_key_value_heads": 4},
    "bailing_moe_linear": {**FOUR, "layer_group_size": 2, "group_norm_size": 2, "num_key_value_heads": 4},
    "bailing_moe_v3": {
        **FOUR,
        "moe_shared_expert_intermediate_size": 32,
        "layer_group_size": 2,
        "head_dim": 32,
    },
    "cohere": {"logit_scale": 1.0},
    "cohere2": {**FOUR, "sliding_window_pattern": 2, "logit_scale": 1.0},
    "dbrx": {
        "d_model": 64,
        "n_layers": 3,
        "n_heads": 4,
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": {"rope_scaling": YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.0}},
    "deepseek_v32": _INDEXER | {"num_key_value_heads": 4},
    "deepseek_v41": {
        **FOUR,
        "o_groups": 2,
        "o_lora_rank": 16,
        "compress_ratios": [0, 4, 8, 4],
        "kv_source_layer_ids": [0, 1, 2, 3],
        "index_source_layer_ids": [0, 1, 2, 3],
        "index_head_dim": 16,
        "index_n_heads": 2,
        "index_topk": 4,
        "hc_mult": 2,
        "hc_sinkhorn_iters": 2,
        "rms_norm_eps": 1e-6,
    },
    "exaone": {"num_layers": 4},
    "exaone4": {**FOUR, "sliding_window_pattern": "LG"},
    "exaone_moe": {**SLIDING, "is_moe_layer": [False, True] * 2, "routed_scaling_factor": 1.0},
    "falcon_h1": {
        "mamba_d_head": 16,
        "mamba_d_ssm": 64,
        "mamba_d_state": 16,
        "mamba_n_heads": 4,
        "lm_head_multiplier": 1.0,
    },
    "gear": {**FOUR, "layer_types": ["full_attention", "sliding_attention", "conv_mixer", "conv_mixer"]},
    "gemma3": {"text_config": {}, "vocab_size": VOCABULARY},
    "gemma3_text": {**FOUR, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma4_text": _GEMMA_4,
    "glm_moe_dsa": _INDEXER
    | {
        "num_key_value_heads": 4,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default", "type": "default"},
    },
    "gpt2": {"n_ctx": 1024, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 1024},
    "gpt_bigcode": {"n_embd": 64, "n_layer": 3, "n_inner": 64, "n_head": 4, "n_positions": 1024},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5},
    "gpt_oss": {**SLIDING, "rope_scaling": YARN},
    "gptj": {"n_embd": 64, "n_positions": 1024, "n_head": 4, "rotary_dim": 8, "n_layer": 3},
    "granitemoehybrid": {
        **FOUR,
        "layer_types": ["mamba", "attention"] * 2,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_proj_bias": False,
        "mamba_conv_bias": True,
        "position_embedding_type": "nope",
    },
    "hunyuan": {
        **FOUR,
        "rope_scaling": {"alpha": 1.0, "factor": 1.0, "type": "dynamic"},
        "moe_topk": 2,
        "num_shared_expert": 1,
        "use_mixed_mlp_moe": True,
        "use_cla": True,
        "cla_share_factor": 2,
    },
    "jamba": {
        **FOUR,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
    },
    "kimi_k25": {"text_config": {}},
    "kimi_k3": {
        **FOUR,
        "linear_attn_config": _KDA,
        "num_experts": 4,
        "num_experts_per_token": 2,
        "attn_res_block_size": 2,
        "activation_situ_beta": 1.0,
        "activation_situ_linear_beta": 1.0,
    },
    "kimi_linear": {**FOUR, "linear_attn_config": _KDA, "model_max_length": 4096, "num_experts_per_token": 2},
    "kimi_vl": {"text_config": {}},
    "laguna": {**SLIDING, "num_attention_heads_per_layer": [4] * 4},
    "lfm2-vl": {"text_config": {}},
    "lfm2": _LFM2
    | {
        "block_dim": 64,
        "block_multiple_of": 16,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 64,
    },
    "lfm2_moe": _LFM2 | {"use_expert_bias": True, "num_dense_layers": 1},
    "lille-130m": {"block_size": 1024, "n_embd": 64, "n_head": 4, "n_kv_heads": 2, "n_layer": 3},
    "llama": {**SLIDING},
    "llama4": {"text_config": {}},
    "llama4_text": {**FOUR, "intermediate_size_mlp": 64, "no_rope_layers": [1, 1, 1, 0]},
    "longcat_flash": _LONGCAT | {"attention_method": "MLA"},
    "longcat_flash_ngram": _LONGCAT | {"ngram_vocab_size_ratio": 2},
    "mamba": {
        "state_size": 16,
        "conv_kernel": 4,
        "use_conv_bias": True,
        "time_step_rank": "auto",
        "intermediate_size": 128,
    },
    "mamba2": {
        "num_heads": 8,
        "state_size": 16,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_conv_bias": True,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
    },
    "mellum": {**SLIDING, "rope_parameters": _ROPE_BY_TYPE},
    "mimo_v2_flash": {
        **FOUR,
        "hybrid_layer_pattern": [1, 0, 1, 0],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "sliding_window_size": WINDOW,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "swa_rope_theta": 10000.0,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 16,
        "swa_v_head_dim": 16,
        "partial_rotary_factor": 0.5,
    },
    "minicpm": {"dim_model_base": 64, "scale_depth": 1.4, "scale_emb": 1.0},
    "minicpm3": {
        "rope_scaling": {"original_max_position_embeddings": 4096, "type": "longrope"},
        "dim_model_base": 64,
        "scale_depth": 1.4,
        "scale_emb": 1.0,
    },
    "minimax": {"rotary_dim": 8},
    "minimax_m3_vl": {"text_config": {}},
    "ministral3": {**SLIDING, "rope_parameters": _LLAMA_4_SCALING},
    "mistral3": {"text_config": {}},
    "mistral4": {"rope_parameters": _LLAMA_4_SCALING, "rope_scaling": None},
    "nemotron": {"hidden_act": "relu2"},
    "nemotron-nas": {
        **FOUR,
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
        ],
    },
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "mamba_proj_bias": False,
        "ssm_state_size": 16,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_conv_bias": True,
        "hybrid_override_pattern": ["M", "*", "-", "M", "*", "E"],
        "moe_shared_expert_intermediate_size": 32,
    },
    "olmo3": {**SLIDING},
    "olmo_hybrid": {
        **FOUR,
        "linear_allow_neg_eigval": True,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "olmo": {
        "d_model": 64,
        "n_layers": 3,
        "mlp_hidden_size": 128,
        "n_heads": 4,
        "embedding_size": VOCABULARY,
    },
    "openelm": {
        "num_transformer_layers": 3,
        "model_dim": 64,
        "ffn_dim_divisor": 16,
        "num_query_heads": [4] * 3,
        "num_kv_heads": [2] * 3,
        "ffn_multipliers": [1.0] * 3,
    },
    "muse_glimmer": FOUR,
    "iquestloopcoder": {"loop_window_size": WINDOW},
    "phi3small": {"dense_attention_every_n_layers": 1, "ff_intermediate_size": 64, "gegelu_limit": 20.0},
    "phixtral": {"num_vocab": VOCABULARY, "model_dim": 64, "num_heads": 4, "num_layers": 3, "rotary_dim": 8},
    "pixtral": {"text_config": {}},
    "plamo": {"n_shared_head": 2},
    "plamo2": {**FOUR, "hidden_size_per_head": 16, "mamba_d_state": 16, "mamba_num_heads": 4},
    "plamo3": {**FOUR, "window_size": WINDOW, "sliding_window_pattern": 2},
    "qwen": {"kv_channels": 16},
    "qwen2_vl": {"text_config": {}},
    "qwen3_vl": {"text_config": {}},
    "qwen3_vl_moe": {"text_config": {}},
    "qwen3_5": {"text_config": {}},
    "qwen3_5_moe": {"text_config": {}},
    "qwen3_5_text": {**FOUR, "full_attention_interval": 2, "num_experts": 0},
    "qwen3_next": {**FOUR, "full_attention_interval": 2},
    "recurrent_gemma": {
        **FOUR,
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "attention_window_size": WINDOW,
        "block_types": ["recurrent", "attention"],
        "num_key_value_heads": 1,
    },
    "rwkv7": {
        "a_low_rank_dim": 16,
        "v_low_rank_dim": 16,
        "gate_low_rank_dim": 16,
        "decay_low_rank_dim": 16,
        "head_dim": 32,
    },
    "spark2_5": {"rope_parameters": _ROPE_BY_TYPE, **SLIDING},
    "step3p5": {
        "num_attention_groups": 2,
        **SLIDING,
        "attention_other_setting": {"num_attention_heads": 4, "num_attention_groups": 2},
        "moe_top_k": 2,
        "share_expert_dim": 32,
        "moe_layers_enum": "1,3",
        "moe_router_scaling_factor": 1.0,
    },
}

OWN["gemma3"]["text_config"] = _text("gemma3_text")
OWN["gemma3n"] = {"text_config": COMMON | {"model_type": "gemma3n_text"} | _GEMMA_3N}
OWN["gemma4"] = {"text_config": _text("gemma4_text"), "vocab_size": VOCABULARY}
OWN["kimi_k25"]["text_config"] = _text("deepseek_v3")
OWN["kimi_k3"] = {"text_config": _text("kimi_k3")}
OWN["kimi_vl"]["text_config"] = _text("deepseek_v3")
OWN["lfm2-vl"]["text_config"] = _text("lfm2")
OWN["llama4"]["text_config"] = _text(
    "llama4_text", attention_chunk_size=WINDOW, interleave_moe_layer_step=2, num_experts_per_tok=1
)
OWN["minimax_m3_vl"]["text_config"] = _text(
    "minimax_m3",
    **FOUR,
    dense_intermediate_size=64,
    moe_layer_freq=[0, 1, 1, 1],
    index_n_heads=2,
    index_head_dim=16,
    index_block_size=4,
    index_topk_blocks=3,
    sparse_attention_freq=[0, 1, 1, 0],
    partial_rotary_factor=0.5,
)
OWN["mistral3"]["text_config"] = _text("ministral3")
OWN["pixtral"]["text_config"] = _text("llama")
OWN["qwen2_vl"]["text_config"] = _text("qwen2")
OWN["qwen3_vl"]["text_config"] = _text("qwen3")
OWN["qwen3_vl_moe"]["text_config"] = _text("qwen3_moe")
OWN["qwen3_5"]["text_config"] = _text("qwen3_5_text")
OWN["qwen3_5_moe"]["text_config"] = _text("qwen3_5_text", num_experts=4)
