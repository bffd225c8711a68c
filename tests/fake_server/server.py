"""A scripted stand-in for mlx_lm.server: speaks its HTTP (1.0, one request per connection) and misbehaves on order.

Flags say how the process as a whole misbehaves; a word in double brackets in the last message, as in
`[[die-mid-stream]]`, says how one request does. It answers "one two three …", a word a token.

With a channel to the daemon it plays our engine: it answers only clients that know the secret, and sends records.

Hundreds of them are started in a run of the tests, so it imports little (http.server alone takes as long as all of
this), and `__main__` imports it, so that Python keeps its compiled code.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from socketserver import StreamRequestHandler, ThreadingTCPServer

TYPE_CHECKING = False
if TYPE_CHECKING:  # to import typing would be a tenth of the start
    from typing import Any

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PAUSES = {"slow": 0.0, "eat": 0.1, "metal": 0.1}  # seconds between two tokens; 0: as ordered
CHANNEL = int(os.environ.get("DRAFTD_CHANNEL_FD", "-1"))
SECRET = os.read(CHANNEL, 256).decode().split("\n")[0] if CHANNEL >= 0 else ""  # its share may follow
ORDER = re.compile(r"\[\[([a-z-]+)(?: ([0-9.]+))?\]\]")


def record(event: str, **fields: Any) -> None:
    """Tell the daemon over the channel; the log says the same, which nothing may believe."""
    made = json.dumps({"event": event, **fields})
    if CHANNEL >= 0:
        os.write(CHANNEL, f"{made}\n".encode())
    print(f"draftd-engine {made}", flush=True)


class Arguments:
    """What the flags say; the engine's other flags say nothing. (argparse takes as long as all of this.)"""

    port = 0
    model = "fake"
    load = 0.0  # seconds until it generates
    exit_at_start: int | None = None  # end with this code, after some last words
    exit_file = ""  # end with code 3 while this file exists
    never_ready = False  # listens, but answers 503
    chatty = False  # logs each request
    work = 0.0  # seconds of work before it listens
    speak = 0.0  # seconds of words before it listens
    flood = False  # writes lines of one letter without end
    nested = False  # answers 200 with 100,000 brackets
    ignore_sigterm = False
    grandchild = ""  # start a grandchild that ignores SIGTERM; write its pid to this file
    chatter = 0  # bytes of output without a newline, at once
    accepted = 0.5  # share of draft tokens
    says = ""  # a line that it writes before each answer
    word = WORDS[0]  # what it says in the place of "one"
    log_requests = ""  # append each request's body to this file

    def __init__(self, words: list[str]) -> None:
        for flag, value in zip(words, [*words[1:], ""], strict=True):
            name = flag.removeprefix("--").replace("-", "_")
            if name == flag or not hasattr(self, name):
                continue
            kind = type(getattr(self, name))
            setattr(self, name, True if kind is bool else int(value) if kind is type(None) else kind(value))


class Handler(StreamRequestHandler):
    args: Arguments
    born = time.monotonic()
    eaten = b""
    # Like mlx_lm.server when drafting: one request at a time, in order, and no request can leave the queue.
    one_at_a_time = threading.Lock()

    def handle(self) -> None:
        self.request_line = self.rfile.readline().decode("latin-1").strip()
        self.headers: dict[str, str] = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            self.headers[name.title()] = value.strip()
        if SECRET and self.headers.get("X-Draftd-Secret") != SECRET:
            self._json(403, {"error": "who are you?"})
        elif self.request_line.startswith("GET "):
            self._get()
        elif self.request_line.startswith("POST "):
            self._post()

    def _head(self, status: int, *headers: str) -> None:
        if self.args.chatty:
            print(f'"{self.request_line}" {status} -', flush=True)
        self.wfile.write("\r\n".join((f"HTTP/1.0 {status} -", *headers, "", "")).encode())

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._bytes(status, json.dumps(body).encode())

    def _bytes(self, status: int, data: bytes) -> None:
        self._head(status, "Content-Type: application/json", f"Content-Length: {len(data)}")
        self.wfile.write(data)

    def _get(self) -> None:
        well = not self.args.never_ready
        self._json(200 if well else 503, {"status": "ok" if well else "unavailable"})

    def _post(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw)
            text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        except (ValueError, LookupError, TypeError):
            self._json(404, {"error": "neither a chat nor a prompt: another endpoint"})
            return
        if self.args.log_requests:
            with open(self.args.log_requests, "ab") as file:
                file.write(raw + b"\n")
        if self.args.never_ready or time.monotonic() - self.born < self.args.load:
            self._json(503, {"error": "still loading"})
            return
        if self.args.nested:
            self._bytes(200, b"[" * 100_000)
            return
        found = ORDER.search(text) if isinstance(text, str) else None
        order, amount = (found[1], float(found[2] or 0)) if found else ("", 0.0)
        with self.one_at_a_time:
            self._answer(body, order, amount)

    def _answer(self, body: dict[str, Any], order: str, amount: float) -> None:
        if self.args.says:
            print(self.args.says, flush=True)
        if order == "die-before-headers":
            os._exit(9)
        if order == "thread-died":
            self._json(404, {"error": "generation thread died"})
            os._exit(70)
        if order == "wait":
            time.sleep(amount)
        if order == "prompt":
            for step in range(1, 11):
                time.sleep(amount / 10)
                print(f"Prompt processing progress: {step}/10", flush=True)
        if order == "heartbeat":
            for _ in range(10):
                time.sleep(amount / 10)
                record("progress")
        if order == "metal":
            memory = {"active": int(amount * 2**20) - 1000, "cache": 2000, "peak": 0}
            record("progress", memory=memory)
        if order == "eat":
            Handler.eaten = b"x" * int(amount * 2**20)
        if order == "status":
            self._json(int(amount), {"error": f"asked for status {int(amount)}"})
            return
        count = min(body.get("max_tokens", 5), int(amount) if order == "tokens" else len(WORDS))
        if body.get("stream"):
            self._stream(body, order, amount, count)
        else:
            self._json(200, self._whole(count))

    def _whole(self, count: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": " ".join(WORDS[:count])}
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1,
            "model": "default_model",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count},
        }

    def _stream(self, body: dict[str, Any], order: str, amount: float, count: int) -> None:
        self._head(200, "Content-Type: text/event-stream")
        chat = "messages" in body
        for number in range(count):
            word = (" " if number else "") + WORDS[number % len(WORDS)]
            self._event(self._chunk(chat, word, None))
            if order in PAUSES:
                time.sleep(PAUSES[order] or amount)
            if number == 1:
                self._halfway(order)
        if order == "no-done":
            return
        reason = "length" if count == body.get("max_tokens") else "stop"
        self._event(self._chunk(chat, "", "tool_calls" if order == "tool-calls" else reason))
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
            self._event(
                {**self._chunk(chat, "", None), "object": "chat.completion", "choices": [], "usage": usage}
            )
        if count:
            self._report(count)  # before the end, as the engine does
        self.wfile.write(b"data: [DONE]\n\n")

    def _report(self, count: int) -> None:
        proposed = round(count / self.args.accepted)
        name = self.headers.get("X-Draftd-Profile")
        record("generation", rounds=count, proposed=proposed, accepted=count, profile=name)
        whose = f"[{name}] " if name else ""
        print(f"{whose}Draft tokens accepted: {count}/{proposed} ({count / proposed:.0%})", flush=True)

    def _halfway(self, order: str) -> None:
        if order == "die-mid-stream":
            os._exit(9)
        if order == "half-event":
            self.wfile.write(b'data: {"choices": [{"ind')
            self.wfile.flush()
            os._exit(9)
        if order == "tool-calls":
            for index, city in enumerate(("Rome", "Oslo")):
                function = {"name": "weather", "arguments": json.dumps({"city": city})}
                call = {"function": function, "type": "function", "id": f"call-{index}", "index": index}
                chunk = self._chunk(True, "", None)
                chunk["choices"][0]["delta"]["tool_calls"] = [call]
                self._event(chunk)
        if order == "error-event":
            self._event({"error": {"message": "broken inside", "type": "server_error"}})
        if order == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
            threading.Event().wait()  # another thread may take the signal, and a little later

    def _chunk(self, chat: bool, text: str, finish: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if chat:
            choice["delta"] = {"role": "assistant", **({"content": text} if text else {})}
        else:
            choice["text"] = text
        kind = "chat.completion.chunk" if chat else "text_completion"
        return {
            "id": "chatcmpl-fake",
            "object": kind,
            "created": 1,
            "model": "default_model",
            "choices": [choice],
        }

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.flush()


def flood() -> None:
    while True:
        os.write(1, b"x\n" * 32768)


def main() -> None:
    args = Handler.args = Arguments(sys.argv[1:])
    WORDS[0] = args.word
    os.getcwd()  # as many libraries do: it fails where the folder is gone
    print(f"fake server of {args.model} on port {args.port}", flush=True)
    if args.exit_at_start is not None or (args.exit_file and os.path.exists(args.exit_file)):
        print("ValueError: the weights are made of cheese", flush=True)
        sys.exit(3 if args.exit_at_start is None else args.exit_at_start)
    if args.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.grandchild:
        import subprocess

        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", code])
        with open(args.grandchild, "w") as file:
            file.write(str(child.pid))
    if args.chatter:
        mess = b"\x00\xff\x1b[2J" + b"x" * 1000
        sys.stdout.buffer.write((mess * 60 + b"\r") * (args.chatter // (60 * len(mess))))
        sys.stdout.flush()
    while time.monotonic() - Handler.born < args.work:
        pass
    while time.monotonic() - Handler.born < args.speak:
        print("loading", flush=True)
        time.sleep(0.1)
    if args.flood:
        threading.Thread(target=flood, daemon=True).start()
    ThreadingTCPServer.daemon_threads = ThreadingTCPServer.allow_reuse_address = True
    ThreadingTCPServer(("127.0.0.1", args.port), Handler).serve_forever()
