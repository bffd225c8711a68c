"""draftd: speculative decoding with mlx_lm.server, supervised and behind one OpenAI-compatible address.

`settings` and `profiles` say what is wanted, `workers` keep the child processes in that shape, `telemetry` turns
their output into numbers and lines, `web` is the front door, `app` builds it all and `cli` is what a user types.
`engine` is the part that runs inside each child. Imports go one way only; pyproject.toml holds the contracts.
"""

__version__ = "0.1.0"  # the wheel takes its version from here
