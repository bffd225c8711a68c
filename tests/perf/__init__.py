"""`make perf`: what the proxy costs, over each of its transports and beside nginx, in one run."""
