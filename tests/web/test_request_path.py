"""The files that a chat request passes through: the shorter the path, the easier it is to understand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import draftd
from tests.harness import fake, serving
from tests.web.raw_http import Wire

PACKAGE = Path(draftd.__file__).parent
# In the order in which they are entered, for a streamed request over the fast transport: first those that do
# something on the path, then those that are only asked. Calls of `telemetry` on the way are not listed.
ON_THE_WAY = (
    "web/fast_http.py", "web/pipeline.py", "web/guard.py", "web/client.py", "web/proxy.py", "web/router.py",
    "web/request_body.py", "web/dialects/field_table.py", "web/completion_answer.py",
    "web/answer.py", "web/answer_stream.py", "web/admission.py", "web/worker_http.py", "web/answer_models.py",
)  # fmt: skip
ASKED = (
    "profiles.py", "workers/supervisor.py", "workers/worker.py", "workers/leasing.py",
    "workers/usage.py", "workers/room.py",
)  # fmt: skip
TOGETHER = "web/json_codec.py"  # only for events that came together, which they do on a busy machine


class Way:
    """Notes the files whose functions are called on behalf of a request; `sys.setprofile` calls it."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        if event == "call" and (file := _file(frame)) and _root(frame).startswith("web/"):
            self.files.setdefault(file)


def _file(frame: FrameType) -> str:
    """The file's path within the package; empty for files outside it."""
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else ""


def _root(frame: FrameType | None) -> str:
    """The file of ours that the loop called: one outside `web` is at work for a worker."""
    root = ""
    while frame is not None:
        root = _file(frame) or root
        frame = frame.f_back
    return root


async def test_a_chat_request_takes_the_way_that_is_written_down(tmp_path: Path) -> None:
    way, wire = Way(), Wire("fast")
    async with serving(tmp_path, {"a": fake()}) as served, wire.connect(served, used=True) as client:
        client.send(wire.chat(stream=True))
        sys.setprofile(way)
        try:
            assert (await client.answer()).status == 200
        finally:
            sys.setprofile(None)
    way.files.pop(TOGETHER, None)
    web = tuple(file for file in way.files if file.startswith("web/"))
    assert web == ON_THE_WAY
    assert {file for file in way.files if not file.startswith("telemetry/")} == {*web, *ASKED}
