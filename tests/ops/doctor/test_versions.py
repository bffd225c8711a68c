"""versions: what the doctor knows about the installed mlx_lm without importing it."""

from __future__ import annotations

import mlx_lm.utils

from draftd.ops.doctor.versions import OTHER_NAMES, unsupported


def test_every_model_type_of_the_installed_mlx_lm_is_known() -> None:
    assert mlx_lm.utils.MODEL_REMAPPING == OTHER_NAMES
    types = {"llama", "mistral", "falcon_mamba", "gemma3", None}
    assert list(unsupported(types)) == []
    assert list(unsupported({"no_such"})) == ["no_such"]
