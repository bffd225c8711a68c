"""mlx_lm's own HTTP handler and queue, with our answers, before a generation that follows a script."""

from __future__ import annotations

import json
import socket
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import ThreadingHTTPServer
from queue import Queue
from types import SimpleNamespace
from typing import Any

from mlx_lm import server
from mlx_lm.generate import TextStateMachine
from mlx_lm.tool_parsers import json_tools

from draftd.engine.answers.completion import handle_completion, taking_top_logprobs
from draftd.engine.answers.presence import await_response

DEADLINE = 10.0  # seconds
CLI = Namespace(
    allowed_origins=[], num_draft_tokens=3, max_tokens=512, temp=0.0, top_p=1.0, top_k=0, min_p=0.0
)
MARKS = {
    "normal": [("<think>", "reasoning"), ("<tool_call>", "tool")],
    "reasoning": [("</think>", "normal")],
    "tool": [("</tool_call>", "normal")],
}
VOCABULARY = ["a", "b", "c", "d"]


class Context(server.GenerationContext):  # type: ignore[misc]
    """mlx_lm's, which says at once when it is stopped."""

    def __init__(self) -> None:
        super().__init__(
            has_tool_calling=True,
            has_thinking=True,
            tool_parser=json_tools.parse_tool_call,
            text_sm=TextStateMachine(MARKS),
            initial_state="normal",
            prompt=[1, 2, 3],
            prompt_cache_count=2,
        )
        self.stopped = threading.Event()

    def stop(self) -> None:
        super().stop()
        self.stopped.set()


class Turn:
    """One request whose turn has come."""

    def __init__(self, responses: Queue[Any], request: Any, arguments: Any) -> None:
        self.put = responses.put
        self._responses = responses
        self.request = request
        self.arguments = arguments
        self.context = Context()

    def tokens(self, *texts: str, reason: str | None = "stop") -> None:
        """Generate a token for each text; with a `reason` the last one ends the generation."""
        self.put(self.context)
        for number, text in enumerate(texts):
            last = number == len(texts) - 1
            self.put(server.Response(text, number % 4, -float(number), reason if last else None, ()))
        self.put(None)

    def until_taken(self) -> None:
        """Return when all that was put has been taken."""
        while not self._responses.empty():
            self.context.stopped.wait(0.01)

    def repeat(self, response: Any) -> bool:
        """Put the same again and again; return whether that was stopped before the deadline."""
        return any(self.put(response) or self.context.stopped.wait(0.01) for _ in range(int(DEADLINE / 0.01)))


Script = Callable[[Turn], None]


class Generator(server.ResponseGenerator):  # type: ignore[misc]
    """mlx_lm's queue; each request's turn is taken by `script` in a thread."""

    _await_response = await_response

    def __init__(self, script: Script) -> None:
        self.requests: Queue[Any] = Queue()
        self.alive = True
        tokenizer = SimpleNamespace(detokenizer=SimpleNamespace(tokenmap=VOCABULARY), decode=str)
        self.model_provider = SimpleNamespace(cli_args=CLI, tokenizer=tokenizer, model=None)
        self._script = script
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while request := self.requests.get():
            self._script(Turn(*request))

    def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> Any:
        """Four tokens, whatever is asked."""
        server.process_message_content(request.messages)
        return ([1, 2, 3, 4],)

    def generation_available(self) -> bool:
        return self.alive


class Handler(server.APIHandler):  # type: ignore[misc]
    """mlx_lm's handler as our hook leaves it."""

    handle_completion = handle_completion
    validate_model_parameters = taking_top_logprobs(server.APIHandler.validate_model_parameters)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Served:
    """A running server, and requests to it."""

    def __init__(self, port: int, generator: Generator) -> None:
        self.port = port
        self.generator = generator

    def send(self, path: str = "/v1/chat/completions", **body: Any) -> socket.socket:
        """Send a request, and return its connection with nothing read."""
        asked = {"messages": [{"role": "user", "content": "Hi!"}]} if "chat" in path else {"prompt": "Hi"}
        data = json.dumps(asked | body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection

    def ask(self, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, str]:
        """Return the status and the body of the answer."""
        with self.send(path, **body) as connection, HTTPResponse(connection) as response:
            response.begin()
            return response.status, response.read().decode()


@contextmanager
def serving(script: Script) -> Iterator[Served]:
    generator = Generator(script)
    httpd = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Handler(generator, *args, system_fingerprint="x")
    )
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Served(httpd.server_address[1], generator)
    finally:
        generator.requests.put(None)
        httpd.shutdown()
        httpd.server_close()
        thread.join(DEADLINE)


def events(body: str) -> list[Any]:
    """The events of a stream; comments as they are."""
    found: list[Any] = []
    for event in body.split("\n\n")[:-1]:
        data = event.removeprefix("data: ")
        found.append(json.loads(data) if data.startswith("{") else data)
    return found
