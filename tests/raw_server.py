"""A worker that answers, byte for byte, what a request orders: its prompt is the answer, in base64.

A zero byte in the answer is a pause, so that what stands before and after it comes in two pieces. Takes --port.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

READY = b'{"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}'
PAUSE = 0.02  # seconds


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        if order == "hi":  # the readiness check
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + READY)
            return
        for piece in base64.b64decode(order).split(b"\0"):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(PAUSE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler).serve_forever()
