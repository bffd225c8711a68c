"""Texts that are asked for, in a module that needs no mlx."""

FILE = "\n".join(f"def step_{n}(state, value={n}):\n    return state + value * {n % 7}" for n in range(30))
