"""The code of ours that runs inside a worker: `python -m draftd.engine <flags of mlx_lm.server>`.

The engine is mlx_lm.server with hooks, not a server of its own. It parses no flags: it places its hooks and
calls `mlx_lm.server.main()`. What the hooks add:

- `speculative` decodes by the paper's rule (`sampling`) where that keeps more draft tokens (`rules`);
- `acceptance` counts rounds, proposed and accepted draft tokens of each request, and reports them;
- `costs` measures what drafting costs on this machine, and estimates what it is worth;
- `prompt_cache` keeps cached prompts true under speculative decoding, and within `--prompt-cache-bytes`;
- `start` refuses flags that corrupt the output, and gives a taken port a name and an exit code;
- `asked` carries what the daemon asks beside the body to where the request is served;
- `guard` refuses what a web page could send to the worker's own port;
- `generation_thread` ends the process when the thread that generates has died.

`lifeline` needs no hook: it ends the process when the daemon is gone; `guardian` holds it in place of a
command that knows nothing of it. `records` is the way out: lines on
stderr, for people and for the daemon. `exits` holds the exit codes. `hooks` is the only place that knows
where mlx_lm is touched; a hook that finds mlx_lm different from what it was written for is left out, and the
worker serves without it.

Importing this package imports no mlx: only `__main__`, `hooks`, `prompt_cache`, `sampling`, `speculative` and
`costs` do, all but the first when they are used. Nothing here imports the rest of the daemon, and the daemon
imports nothing from here: they meet at the flags, one environment variable, the lines on stderr and the exit code.
"""
