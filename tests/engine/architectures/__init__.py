"""Every architecture of mlx_lm as a tiny random model, and the proof that drafting leaves its text as it is."""
