"""`python -m draftd`: the command line."""

from draftd.cli import main

main()
