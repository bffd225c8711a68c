"""What is measured: draftd as a process of its own, its worker (the stub), and nginx in front of the same stub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import free_ports

STUB = Path(__file__).with_name("stub.py")
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 1m; keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off; tcp_nodelay on; }}
  }}
}}
"""


@contextmanager
def draftd(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Run the daemon; gives its pid, its port, and the port of its worker."""
    command = [sys.executable, str(STUB), "--port", "{port}"]
    profiles = folder / "profiles"
    profiles.mkdir()
    profile = f'model = "stub"\ncommand = {json.dumps(command)}\n[limits]\nconcurrency = 64\n'
    (profiles / "stub.toml").write_text(profile)
    port, worker = free_ports(), free_ports(2)
    env = {key: value for key, value in os.environ.items() if not key.startswith("DRAFTD_")}
    env |= {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_STATE_HOME": str(folder)}
    args = ["up", "--port", str(port), "--base-port", str(worker), "--plain"]
    args += ["--profiles", str(profiles), "--state-dir", str(folder / "state")]
    with (
        (folder / "draftd.log").open("wb") as log,
        _process([str(Path(sys.executable).with_name("draftd")), *args], env, log.fileno()) as process,
    ):
        _until_ok(f"http://127.0.0.1:{port}/readyz", process)
        status = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=5))
        yield process.pid, port, status["workers"][0]["port"]


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int | None]:
    """Run nginx in front of `upstream`; gives its port, None where it is not installed."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        yield None
        return
    port = free_ports()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    args = [program, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]
    with (folder / "nginx.log").open("wb") as log, _process(args, dict(os.environ), log.fileno()) as process:
        _until_ok(f"http://127.0.0.1:{port}/health", process)
        yield port


@contextmanager
def _process(args: list[str], env: dict[str, str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(args, env=env, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()


def _until_ok(url: str, process: subprocess.Popen[bytes], limit: float = 30.0) -> None:
    """Ask until it answers 200. Raises RuntimeError if the process ends or the limit is over."""
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not answer at {url}")
