"""Makes the demo pair: `python -m daemon.demo.train` (needs torch, numpy, safetensors, tokenizers)."""
