"""From the tokens that a worker generates to the answer that a client gets, for drafted and batched requests alike.

`completion` takes the place of mlx_lm's handler, and `arguments` tells mlx_lm what is asked for. For each token,
`channels` splits the text into content, reasoning and tool calls; `answer_text` puts it together; `stop_texts` ends
it; `token_spans` says which tokens are shown; `answer_forms` and `logprobs` give all that OpenAI's form. `presence`
notices a client that leaves, and `exact_logits` makes log-probabilities exact.
"""
