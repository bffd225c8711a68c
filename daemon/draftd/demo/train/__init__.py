"""Makes the demo pair: `python -m draftd.demo.train` (needs torch, numpy, safetensors, tokenizers)."""
