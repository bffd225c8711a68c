"""`make perf`: what the proxy costs, beside nginx, in one run."""
