"""What the daemon asks in headers: read, and current where the request is served, on classes of mlx_lm's shape."""

import queue
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from draftd.engine.request_context import RequestContext, carry, current, of, read
from tests.engine.served import Engine, turn


@pytest.mark.parametrize(
    ("headers", "context"),
    [
        ({}, RequestContext()),
        ({"X-Draftd-Profile": "qwen2.5-3b_fast"}, RequestContext("qwen2.5-3b_fast")),
        ({"X-Draftd-Profile": "a] Draft tokens accepted: 1/1 (100%)"}, RequestContext()),
        ({"X-Draftd-Profile": ""}, RequestContext()),
        ({"X-Draftd-Profile": "a", "X-Draftd-Draft": "auto"}, RequestContext("a", auto=True)),
        ({"X-Draftd-Draft": "manual"}, RequestContext()),
        ({"X-Draftd-Drafters": "lookup"}, RequestContext(drafters=frozenset({"lookup"}))),
        ({"X-Draftd-Drafters": "model,eagle"}, RequestContext(drafters=frozenset({"model"}))),
        ({"X-Draftd-Drafters": ""}, RequestContext(drafters=frozenset())),
    ],
)
def test_headers(headers: dict[str, str], context: RequestContext) -> None:
    assert read(headers) == context


@dataclass
class Arguments:
    num_draft_tokens: int = 3


class Generator:
    """Serves in another thread than the one that asks, and keeps the contexts that arrive there."""

    def __init__(self) -> None:
        self.requests: queue.Queue[Any] = queue.Queue()
        self.seen: list[RequestContext] = []

    def generate(self, request: str, generation_args: Arguments, progress_callback: Any = None) -> None:
        self.requests.put((None, request, generation_args))

    def serve_all(self) -> None:
        while not self.requests.empty():
            self._serve_single(self.requests.get(), None)

    def _serve_single(self, request: Any, stream: Any) -> None:
        self.seen.append(of(request[-1]))
        if request[1] == "bad":
            raise RuntimeError


class Handler:
    def __init__(self, headers: dict[str, str], generator: Generator, text: str = "good") -> None:
        self.headers = headers
        self.generator = generator
        self.text = text

    def do_POST(self) -> None:
        self.generator.generate(self.text, Arguments(), progress_callback=None)


def test_it_travels_with_the_request_to_the_thread_that_serves_it() -> None:
    class MyHandler(Handler): ...

    class MyGenerator(Generator): ...

    carry(MyHandler, MyGenerator)
    generator = MyGenerator()
    asking = [MyHandler({"X-Draftd-Profile": name}, generator) for name in ("a", "b")]
    for handler in (*asking, MyHandler({}, generator)):
        handler.do_POST()
    assert current() == RequestContext()
    serving = threading.Thread(target=generator.serve_all)
    serving.start()
    serving.join()
    assert generator.seen == [RequestContext("a"), RequestContext("b"), RequestContext()]


def test_a_request_that_fails_leaves_nothing_behind() -> None:
    class MyGenerator(Generator): ...

    class MyHandler(Handler): ...

    carry(MyHandler, MyGenerator)
    generator = MyGenerator()
    MyHandler({"X-Draftd-Profile": "a"}, generator, "bad").do_POST()
    with pytest.raises(RuntimeError):
        generator.serve_all()
    assert current() == RequestContext()


@pytest.mark.real
def test_the_lines_of_a_request_say_whose_it_is(drafted: Engine) -> None:
    body = {"prompt": turn("Hello!"), "max_tokens": 5}
    _, lines = drafted.generation(
        lambda: drafted.ask("/v1/completions", {"X-Draftd-Profile": "mine"}, **body)
    )
    assert any(line.startswith("[mine] Draft tokens accepted: ") for line in lines)
    assert drafted.records("generation")[-1]["profile"] == "mine"
    _, lines = drafted.generation(lambda: drafted.ask("/v1/completions", **body))
    assert any(line.startswith("Draft tokens accepted: ") for line in lines)
    assert "profile" not in drafted.records("generation")[-1]
