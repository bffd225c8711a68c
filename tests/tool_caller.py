"""A scripted model for agents: asked with tools it calls OpenCode's `read`, Claude Code's `Write` or Codex's
`exec_command` on the file that the last message names in brackets, then says what the tool returned. With a number
after the name, as in [[a.txt x9]], it calls that many times. Asked to [[blunder]], it ends as mlx_lm.server does
when it cannot parse a call. Each request's body goes to the file `--log-requests` names.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CALLS: dict[str, Callable[[str], dict[str, str]]] = {
    "read": lambda file: {"filePath": file},
    "Write": lambda file: {"file_path": file, "content": "swordfish\n"},
    "exec_command": lambda file: {"cmd": f"echo swordfish > {shlex.quote(file)}"},
}
NAMED = re.compile(r"\[\[([^\]]+)\]\]")


def reply(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The delta and the finish_reason for a request."""
    messages = body["messages"]
    asked = NAMED.findall(json.dumps([m for m in messages if m["role"] == "user"]))
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if not body.get("tools") or not asked:
        return {"content": "A title"}, "stop"
    if asked[-1] == "blunder":
        return {"content": "oops"}, "tool_calls"
    file, _, times = asked[-1].partition(" x")
    if len(results) >= int(times or 1):
        return {"content": f"It says: {json.dumps(results[-1])}"}, "stop"
    offered = {tool["function"]["name"] for tool in body["tools"]}
    name = next(name for name in CALLS if name in offered)
    function = {"name": name, "arguments": json.dumps(CALLS[name](file))}
    call = {"index": 0, "id": f"call_{len(results) + 1}", "type": "function", "function": function}
    return {"tool_calls": [call]}, "tool_calls"


class Handler(BaseHTTPRequestHandler):
    log: str

    def do_GET(self) -> None:
        self._send("application/json", b'{"status": "ok"}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(self.log, "a") as file:
            file.write(json.dumps(body) + "\n")
        delta, reason = reply(body)
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "default_model"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", **delta}, "finish_reason": reason}
            self._send("application/json", json.dumps({**head, "choices": [choice], "usage": usage}).encode())
            return
        chunks = [
            {
                **head,
                "choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}],
            },
            {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
            {**head, "choices": [], "usage": usage},
        ]
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
        self._send("text/event-stream", "".join(f"data: {event}\n\n" for event in events).encode())

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log-requests", required=True)
    given = parser.parse_args()
    Handler.log = given.log_requests
    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()
