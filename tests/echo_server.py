"""A worker that answers with what it was sent, or does what the query orders: `made`, `stream`, `refuse`, `hash`,
`early`, `old`, `half`, `slow`, or `die`.

Takes --port, and --single for a server that has one thread only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SLOW = 2.0  # seconds
RAW = {
    "old": b"HTTP/1.0 200 OK\r\n\r\nold",  # its end is that of the connection
    "half": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Type: a/hint\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 1000\r\n\r\nhal",
}
READY = b'{"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200, b"{}")

    def do_POST(self) -> None:
        if "order=early" in self.path:  # it answers before it has read anything
            self._answer(413, b'{"error": {"message": "too long for me"}}')
            self.close_connection = True
            return
        if "order=hash" in self.path:
            self._answer(200, self._hashed(int(self.headers["Content-Length"])))
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/chat/completions":
            self._answer(200, READY)
            return
        order = parse_qs(urlsplit(self.path).query).get("order", [""])[0]
        if order == "refuse":
            self._answer(422, b'{"error": {"message": "too odd", "type": "odd_error", "code": "odd"}}')
        elif order == "go-on":
            Handler.go_on.set()
            self._answer(200, b"{}")
        elif order in ("stream", "die"):
            self._stream(dies=order == "die")
        elif order == "slow":
            time.sleep(SLOW)
            self._answer(200, b"{}")
        elif raw := RAW.get(order):
            self.wfile.write(raw)
            self.close_connection = True
        else:
            told = {
                "path": self.path,
                "kind": self.headers["Content-Type"],
                "body": base64.b64encode(body).decode(),
            }
            self._answer(201 if order == "made" else 200, json.dumps(told).encode())

    def _hashed(self, left: int) -> bytes:
        """The length and the hash of a body that may be large."""
        digest, length = hashlib.sha256(), 0
        while piece := self.rfile.read(min(left - length, 2**20)):
            digest.update(piece)
            length += len(piece)
        return json.dumps({"length": length, "hash": digest.hexdigest()}).encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, *, dies: bool) -> None:
        """Two pieces; the second when another request says so."""
        self.send_response(200)
        self.send_header("Content-Type", "audio/mpeg")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\n\x00\xff\x01\r\n")
        self.wfile.flush()
        assert Handler.go_on.wait(30)
        Handler.go_on.clear()
        if dies:
            os._exit(9)
        self.wfile.write(b"2\r\n\x02\x03\r\n0\r\n\r\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--single", action="store_true")
    asked = parser.parse_args()
    ThreadingHTTPServer.daemon_threads = True
    kind = HTTPServer if asked.single else ThreadingHTTPServer
    kind(("127.0.0.1", asked.port), Handler).serve_forever()
