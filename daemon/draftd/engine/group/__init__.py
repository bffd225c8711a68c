"""One model over several ranks, on this machine or on others: `python -m draftd.engine.group <flags>`.

Theory of operation. To the daemon a group is one child, with one lifeline and one channel. That child is the
*launcher* (`launcher`): a small process that loads no model. It starts the *ranks* (`rank`), each an engine of its
own, and ends all of them when one has ended.

It does what mlx.launch does (an environment of MLX_RANK, MLX_HOSTFILE and so on for each rank, over ssh for other
machines), and is not mlx.launch, because of how that ends: SIGTERM ends it and leaves its ranks behind, SIGKILL
does so always; a rank that ends by itself is noticed, one that hangs is not; it holds no pipe whose end would tell
another machine that it is gone; what the ranks say comes without their names; and it keeps a core busy while it
waits. Of mpirun the ranks get what they need to find each other, and are not started by it (`mpi`).

*Nobody is left behind.* Each rank's stdin is a pipe whose other end only the launcher holds, or ssh for it. The
launcher writes a line into it each second. End of file, or SILENCE_S seconds without a line, ends the rank. On
another machine a guard (`guard`) stands between ssh and the rank, since a rank that hangs cannot end itself. Ranks
on this machine are in the launcher's process group, which the daemon kills. The launcher's own lifeline ends the
group when the daemon is gone.

*Nobody hangs unnoticed.* Each rank says once a second that it lives, and how much memory it takes. The launcher
tells the daemon for how long each has been silent, and the daemon counts that as a missed health check.

*Nobody drifts apart.* mlx_lm lets all ranks decide everything, each for itself, and trusts that they come to the
same; a client that leaves, a clock or a cache that is full at one rank only, and the ranks wait for each other for
ever. Here the first rank decides everything, as an engine on its own does: it has the queue, the prompt cache, the
drafters, the sampling. The others have the target model's part of the work and nothing else (`follow`). They are
told each step of the target model's caches (`lead`): begin, read these tokens, forget the last three. So drafts
are made by the first rank alone, requests may take turns, and one that is left is simply not gone on with.

Steps are numbers in an array (`steps`) that travels as the tensors do, by `all_sum`. An `all_sum` keeps a core busy
while it waits. So when nothing is asked for, the first rank sends the others to sleep, and wakes them by a line to
the launcher.
"""
