"""Sessions of real agents, as they were recorded: what each sent in ten turns, with its long texts cut."""
