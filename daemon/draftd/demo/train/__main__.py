"""Entry point of `python -m draftd.demo.train`."""

from draftd.demo.train.train import main

main()
