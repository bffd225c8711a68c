"""Generation with a draft model: the rounds, what decides about them, and what counts them."""
