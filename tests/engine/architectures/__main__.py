"""Prove all architectures and write the table."""

import sys

from tests.engine.architectures.proof import write

if __name__ == "__main__":
    sys.exit(not write())
