"""mlx_lm.server's own handler. Tests import it late: it takes more than a second, in each process that collects."""

import io
import json
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from mlx_lm.server import APIHandler, process_message_content

from draftd.engine.answers.completion import taking_top_logprobs
from draftd.web.request_body import Endpoint

CLI = Namespace(num_draft_tokens=3, max_tokens=512, temp=0.0, top_p=1.0, top_k=0, min_p=0.0)


class Handler(APIHandler):  # type: ignore[misc]  # mlx_lm has no types
    """mlx_lm's own, with what our engine changes about the fields that it takes."""

    validate_model_parameters = taking_top_logprobs(APIHandler.validate_model_parameters)


@dataclass
class Taken:
    """What mlx_lm.server made of a body: the request, or the status and words of its refusal."""

    request: Any = None
    stop_words: Any = None
    refusal: str = ""


def taken_by_mlx(payload: bytes, endpoint: Endpoint) -> Taken:
    """Let mlx_lm.server's own handler read and check a body, up to where it would be queued for generation."""
    taken = Taken()
    handler = object.__new__(Handler)
    handler.path = "/v1/" + endpoint.replace(".", "/")
    handler.headers = {"Content-Length": str(len(payload))}
    handler.rfile, handler.wfile = io.BytesIO(payload), io.BytesIO()
    handler.response_generator = Namespace(cli_args=CLI)
    handler._set_completion_headers = handler.end_headers = lambda *_: None

    def queue(request: Any, stop_words: Any) -> None:
        assert process_message_content(request.messages) == []
        taken.request, taken.stop_words = request, stop_words

    handler.handle_completion = queue
    handler.do_POST()
    taken.refusal = handler.wfile.getvalue().decode()
    return taken


def mlx_answers(stream: bool, endpoint: Endpoint, **parts: Any) -> dict[str, Any]:
    """A chunk, or a whole answer, as mlx_lm.server words it."""
    handler = object.__new__(APIHandler)
    handler.stream = stream
    handler.request_id, handler.system_fingerprint, handler.created = "id-1", "print-1", 1700000000
    handler.requested_model = "default_model"
    kind = "chat.completion.chunk" if stream else "chat.completion"
    handler.object_type = kind if endpoint == "chat.completions" else "text_completion"
    answer: dict[str, Any] = json.loads(json.dumps(handler.generate_response(**parts)))
    return answer
