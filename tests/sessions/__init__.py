"""Recorded sessions of real agents: what each sent in ten turns, with its long texts shortened."""
