"""A scripted rank, in the place of the Python that would run one, and a scripted ssh.

What a rank says and does beside the usual is in its variable RANK_<n>. It knows the launcher's messages, and the
first one answers over HTTP as an engine does.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness import QUICK

VERSIONS = {"draftd": "1", "mlx": "1", "mlx-lm": "1"}
PROGRAM = """
import json, os, select, sys, threading, time

setup = json.loads(sys.stdin.buffer.readline())
rank = setup["rank"]
quirks = json.loads(setup["environ"].get(f"RANK_{rank}", "{}"))

def say(**said):
    sys.stdout.write(json.dumps(said) + "\\n")
    sys.stdout.flush()

def beat():
    while True:
        say(alive=quirks.get("memory", 1000))
        time.sleep(0.1)

def serve(port):
    import http.server, socketserver  # here, as it takes longer than all else, and one rank does it

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def log_message(self, *words): pass
        def answer(self, body, kind="application/json"):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def do_GET(self): self.answer(b"{}")
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not asked.get("stream"):
                text = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
                self.answer(json.dumps({"object": "chat.completion", "choices": [text]}).encode())
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for reason in (None, "stop"):
                delta = {"role": "assistant", "content": "" if reason else "ok"}
                choice = {"index": 0, "delta": delta, "finish_reason": reason}
                event = json.dumps({"object": "chat.completion.chunk", "choices": [choice]})
                self.wfile.write(f"data: {event}\\n\\n".encode())
                self.wfile.flush()
                if asked["messages"][-1]["content"] == "hang":
                    threading.Event().wait()
            self.wfile.write(b"data: [DONE]\\n\\n")
            self.close_connection = True

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    Server(("127.0.0.1", port), Handler).serve_forever()

threading.Thread(target=beat, daemon=True).start()
print(f"rank {rank} is up", file=sys.stderr, flush=True)
if "hangs" in quirks:
    os.kill(os.getpid(), 19)
say(hello={**quirks["versions"], "time": time.time(), "missing": quirks.get("missing", [])})
tries = 0
while line := sys.stdin.buffer.readline():
    said = json.loads(line) if line.strip() else {}
    if "ports" in said:
        tries += 1
        say(busy=said["ports"] if tries <= quirks.get("busy", 0) else [])
    if "go" in said:
        print("go", json.dumps(said["go"]), file=sys.stderr, flush=True)
        if "exits" in quirks:
            os._exit(quirks["exits"])
        if rank == 0:
            port = int(setup["flags"][setup["flags"].index("--port") + 1])
            threading.Thread(target=serve, args=(port,), daemon=True).start()
"""
# As ssh does it: a session of its own for the command, and the end of its stdin when this process ends.
SSH = """
import os, subprocess, sys, threading
host, command = sys.argv[sys.argv.index("--") + 1:]
if host == "down":
    sys.stderr.write("ssh: connect to host down port 22: Connection refused\\n")
    sys.exit(255)
there = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, start_new_session=True, cwd="/")
def pass_on():
    while piece := os.read(0, 65536):
        os.write(there.stdin.fileno(), piece)
    there.stdin.close()
threading.Thread(target=pass_on, daemon=True).start()
code = there.wait()
sys.exit(code if code >= 0 else 255)
"""


# As mpirun does it: a stand-in's line for each rank, until its stdin ends.
MPIRUN = """
import base64, json, os, sys, zlib
print("a word of its own", flush=True)
for rank in range(sys.argv.count("-n")):
    given = json.dumps({"PMIX_RANK": str(rank), "OMPI_THERE": os.environ["OMPI_MCA_plm_rsh_agent"]})
    print(rank, base64.b64encode(zlib.compress(given.encode())).decode(), flush=True)
sys.stdin.read()
"""
NO_MPIRUN = 'raise SystemExit("the orted of mini could not be started")'


def program(path: Path, text: str) -> Path:
    """Make a program of a script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def profile(
    folder: Path,
    quirks: Mapping[int, Mapping[str, Any]] | None = None,
    *,
    group: str = "ranks = 2",
    tables: str = QUICK,
) -> str:
    """A profile of a group of scripted ranks, with what is odd about each."""
    ranks = {
        f"RANK_{number}": json.dumps({"versions": VERSIONS} | dict((quirks or {}).get(number, {})))
        for number in range(4)
    }
    env = ", ".join(f"{name} = '{value}'" for name, value in ranks.items())
    python = program(folder / "bin" / "rank", PROGRAM)
    return f'model = "org/model"\n{tables}\n[distributed]\n{group}\npython = "{python}"\nenv = {{ {env} }}\n'


def hostfile(folder: Path, *names: str) -> str:
    """Write a hostfile of this machine and others, which is what `group` of a profile says then."""
    hosts = [{"ssh": name, "ips": ["127.0.0.1"], "rdma": []} for name in ("localhost", *names)]
    (folder / "hosts.json").write_text(json.dumps({"hosts": hosts}))
    return f'hosts = "{folder / "hosts.json"}"'
