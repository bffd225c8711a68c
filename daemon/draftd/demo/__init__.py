"""The demo pair: a tiny Qwen2 target model and a smaller draft model with the same tokenizer.

Both folders can be given to `mlx_lm` as they are. `MODEL_CARD.md` beside this file says what they are;
`train/` holds the script that made them.
"""

from pathlib import Path

TARGET: Path = Path(__file__).parent / "target"
"""Folder of the target model."""

DRAFT: Path = Path(__file__).parent / "draft"
"""Folder of the draft model."""
