"""Entry point of `python -m daemon.demo.train`."""

from daemon.demo.train.train import main

main()
