"""The code of ours that runs inside a worker: `python -m draftd.engine <flags of mlx_lm.server>`.

The engine is mlx_lm.server with hooks, not a server of its own. It parses no flags: it places its hooks and calls
`mlx_lm.server.main()`. What the hooks add:

- `serving` answers what is not batched, all of a worker that drafts, in our own loop (`generation`), and counts
  what was proposed and accepted;
- `answers` puts the answers together: stop texts, tool calls, log-probabilities, and an end when a client leaves;
- `context_limit` refuses prompts that are longer than the model's context, by `refusals` that clients are told;
- `progress` tells the daemon that a slow request makes progress;
- `prompt_cache` keeps cached prompts true for every kind of cache and under drafting;
- `request_context` carries what the daemon asks beside a request's body to where the request is served;
- `logit_bias` takes a bias on tokens, and refuses one on tokens that the model does not have;
- `model_facts` says what the models are like once they are loaded;
- `startup_checks` refuses flags that corrupt the output, and gives a taken port a name and an exit code;
- `own_models` refuses requests for other weights than the worker's, and for images from the network;
- `guard` refuses what programs and web pages send to the worker's own port past the daemon;
- `memory_limits` bounds what the worker wires and keeps of a GPU's memory;
- `release` gives the GPU's memory back before SIGTERM ends the process;
- `watchdog` ends the process when the thread that generates has died.

`lifeline` needs no hook: it ends the process when the daemon is gone; `guardian` holds it for a command that
knows nothing of it. `channel` takes the secret that requests must know. `spare` is an engine that has imported
everything and waits for its flags. `group` is several engines that serve one model together. `records` writes lines
on stderr for people, and over the channel for the daemon; `exits` ends the process with an exit code. Only `hooks`,
and `group.hook` for ranks, know where mlx_lm is touched. A hook that finds mlx_lm different from what it was
written for is left out, and the worker serves without it.

Importing this package imports no mlx; `__main__` places the hooks, and they import what needs it. Nothing here
imports the rest of the daemon but `draftd.protocol` and `draftd.sharded_models`, and the daemon imports nothing
from here.
"""
