"""Run the scripted server; after `--guarded`, under a guardian of its own."""

import os
import sys

sys.path.append(os.path.abspath(f"{__file__}/../../.."))

if sys.argv[1:2] == ["--guarded"]:
    del sys.argv[1]
    from tests.fake_server.guardian import guard

    guard()

from tests.fake_server.server import main

main()
