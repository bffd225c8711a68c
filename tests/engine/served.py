"""A running engine for tests: the process, its lines on stderr as they come, and requests to it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from draftd.demo import TARGET
from draftd.protocol import LIFELINE_VARIABLE, RECORD_PREFIX
from tests.ties import Token, tokens_of_completion

DEADLINE_S = 30.0
ENGINE = (sys.executable, "-m", "draftd.engine")
END_OF_SEQUENCE: int = json.loads((TARGET / "config.json").read_text())["eos_token_id"]
LISTENING = "Starting httpd at"


def turn(question: str) -> str:
    """Return the text of a chat's first turn, up to where the answer begins."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """One engine process, leader of its own group, which ends when we do. Every wait has a deadline."""

    def __init__(
        self,
        *flags: str | Path,
        start: tuple[str, ...] = ENGINE,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.port = port or free_port()
        self.lines: list[str] = []
        self._sent = 0
        self._news = threading.Condition()
        lifeline, held = os.pipe()
        self._lifeline: int | None = held  # closed when we are gone, however we end
        variables = {"HF_HUB_OFFLINE": "1", LIFELINE_VARIABLE: str(lifeline), **(env or {})}
        self.process = subprocess.Popen(
            [*start, *map(str, flags), "--port", str(self.port)],
            stderr=subprocess.PIPE,
            env=os.environ | variables,
            pass_fds=(lifeline, *pass_fds),
            start_new_session=True,
        )
        os.close(lifeline)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, found: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the lines so far satisfy `found`; return them."""
        with self._news:
            assert self._news.wait_for(lambda: found(self.lines), DEADLINE_S), "\n".join(self.lines)
            return list(self.lines)

    def wait_for_line(self, part: str) -> str:
        lines = self.wait_for(lambda lines: any(part in line for line in lines))
        return next(line for line in lines if part in line)

    def wait_for_exit(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def listening(self) -> "Engine":
        self.wait_for_line(LISTENING)
        return self

    def records(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line.removeprefix(RECORD_PREFIX)) for line in self.lines if RECORD_PREFIX in line]
        return [record for record in found if record["event"] == event]

    def open(
        self, path: str, headers: Mapping[str, str] | None = None, **body: Any
    ) -> http.client.HTTPResponse:
        """Send a request; return the response with its body unread."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        head = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", path, json.dumps({"temperature": 0, **body}), head)
        response = connection.getresponse()
        self._sent += response.status == 200  # one that is refused has no record
        return response

    def post(self, path: str, text: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send what may be refused; return the status and the body of the answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)) as connection:
            connection.request("POST", path, text, dict(headers))
            answer = connection.getresponse()
            self._sent += answer.status == 200
            return answer.status, answer.read()

    def endless(self) -> http.client.HTTPResponse:
        """Ask for an answer that does not end, and return the stream with its first line read."""
        never = {str(END_OF_SEQUENCE): -1000}
        response = self.open(
            "/v1/completions", prompt=turn("Hello!"), max_tokens=100_000, logit_bias=never, stream=True
        )
        assert response.readline()
        return response

    def ask(self, path: str, headers: Mapping[str, str] | None = None, /, **body: Any) -> dict[str, Any]:
        """Send a request, and return the answer's JSON."""
        with self.open(path, headers, **body) as response:
            answer: dict[str, Any] = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def complete(self, prompt: str, **body: Any) -> str:
        """Return the text that continues the prompt."""
        text: str = self.ask("/v1/completions", prompt=prompt, **body)["choices"][0]["text"]
        return text

    def tokens(self, prompt: str, **body: Any) -> list[Token]:
        """Return the tokens that continue the prompt, with their log-probabilities."""
        answer = self.ask("/v1/completions", prompt=prompt, logprobs=True, top_logprobs=5, **body)
        return tokens_of_completion(answer["choices"][0]["logprobs"])

    def generation(self, send: Callable[[], Any]) -> tuple[Any, list[str]]:
        """Call `send`; return its result, and the lines from there to the record of that generation.

        For an engine that drafts, where each request has one record.
        """
        before = len(self._wait_for_records())
        result = send()
        return result, self._wait_for_records()[before:]

    def _wait_for_records(self) -> list[str]:
        return self.wait_for(lambda _: len(self.records("generation")) == self._sent)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
