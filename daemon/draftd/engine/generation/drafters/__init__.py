"""Whatever proposes tokens: a draft model, or a lookup in the text so far and in past answers."""
