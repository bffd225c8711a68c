"""Prompt caches in files: what one engine has read of a prompt, the next one does not read again. See `store`."""
