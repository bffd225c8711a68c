"""The body of /api/status."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from draftd.peer_tables import PeerTable
from draftd.peers.load_report import Known, LoadedModel
from draftd.peers.machines import Peer
from draftd.status_table import status_view
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.records import DraftAcceptance
from draftd.web import status_report
from draftd.workers.status import LastExit, RankStatus, WorkerStatus

READY = WorkerStatus(
    name="small",
    worker="little",
    shares_with=("little",),
    state="ready",
    pid=42,
    port=8001,
    model="org/model",
    draft_model="org/draft",
    drafters=("lookup", "model"),
    num_draft_tokens=5,
    auto_draft=False,
    since=1700000000.9,
    reason="",
    due=1700000001.0,
    restarts=2,
    last_exit=None,
    memory_bytes=1024,
    start_seconds=1.5,
    draft_refusal=None,
    batch_refusal=None,
    accounting=True,
    notes=("port 8000 was busy",),
)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("1", "0.32.2")
    made.declare("small")
    return made


def test_a_worker_that_has_done_nothing_is_told_with_zeros_and_nulls(metrics: Metrics) -> None:
    assert status_report.worker(READY, 3, metrics) == {
        "name": "small",
        "worker": "little",
        "shares_with": ["little"],
        "state": "ready",
        "pid": 42,
        "port": 8001,
        "model": "org/model",
        "draft_model": "org/draft",
        "drafters": ["lookup", "model"],
        "num_draft_tokens": 5,
        "auto_draft": False,
        "draft_refusal": None,
        "batch_refusal": None,
        "since": "2023-11-14T22:13:20+00:00",
        "reason": "",
        "due": "2023-11-14T22:13:21+00:00",
        "restarts": 2,
        "last_exit": None,
        "memory_bytes": 1024,
        "ranks": [],
        "start_seconds": 1.5,
        "queue": 3,
        "requests": 0,
        "acceptance": {"proposed": 0, "accepted": 0, "ratio": None},
        "speculation": {
            "proposed_by_position": [],
            "accepted_by_position": [],
            "rounds_by_draft_length": [],
            "requests_by_rule": {},
            "by_drafter": {},
            "costs": None,
            "speedup_estimate": None,
        },
        "tokens_per_second": None,
        "prompt_cache": {
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "ratio": None,
            "entries": None,
            "bytes": None,
            "limit_bytes": None,
            "stored_prompts": {"stored": 0, "restored": 0, "refused": 0},
        },
        "notes": ["port 8000 was busy"],
    }


def test_the_ranks_of_a_group_are_told_without_what_changes_each_second(metrics: Metrics) -> None:
    ranks = (RankStatus(0, "", 5, 1000, 0.1), RankStatus(1, "mini", None, 2000, 0.7))
    assert status_report.worker(replace(READY, ranks=ranks), 0, metrics)["ranks"] == [
        {"rank": 0, "host": "", "pid": 5, "memory_bytes": 1000},
        {"rank": 1, "host": "mini", "pid": None, "memory_bytes": 2000},
    ]


def test_a_worker_is_told_with_what_was_measured(metrics: Metrics) -> None:
    metrics.record("small", DraftAcceptance(accepted=4, proposed=5))
    metrics.generation("small", prompt_tokens=7, completion_tokens=11, seconds=2.0)
    metrics.request("small", "chat.completions", 200, 2.0)
    told = status_report.worker(READY, 0, metrics)
    assert told["acceptance"] == {"proposed": 5, "accepted": 4, "ratio": 0.8}
    assert told["tokens_per_second"] == 5.0
    assert told["requests"] == 1


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(None, "never started"), (-9, "SIGKILL"), (1, "exit code 1"), (98, "port was taken")],
)
def test_the_last_exit_is_told_in_words_that_json_can_carry(
    metrics: Metrics, code: int | None, meaning: str
) -> None:
    status = replace(READY, last_exit=LastExit(code, "exit", 1700000000.0, ("a", "b")))
    told = json.loads(json.dumps(status_report.worker(status, 0, metrics)))["last_exit"]
    assert meaning in told.pop("meaning")
    assert told == {"code": code, "reason": "exit", "at": "2023-11-14T22:13:20+00:00", "lines": ["a", "b"]}


def test_a_peer_is_told_with_its_queue_and_how_it_failed_last() -> None:
    one = Peer(PeerTable(url="http://127.0.0.1:9"), lambda: None)
    assert status_report.peer(one)["last_failure"] is None
    one.failed("fell silent")
    one.reported(Known(True, {"m": LoadedModel(name="m", slots=2, open=3, state="asleep")}, "1", 10.0))
    with one.serves("m"):
        row = json.loads(json.dumps(status_report.peer(one)))
    assert (row["state"], row["reason"], row["last_failure"]["reason"]) == ("well", "", "fell silent")
    assert row["load"] == {"m": {"state": "asleep", "open": 4, "slots": 2}}
    terminal = Console(width=120, record=True, file=io.StringIO())
    terminal.print(status_view({"workers": [], "peers": [row]}, 120))
    shown = terminal.export_text()
    told = r"peer 127.0.0.1:9: 1 model, 1 open \(of 4\), 0 answered; [0-9]+ s ago: fell silent\s*"
    assert re.fullmatch(told, shown)  # and no table of workers, as there are none
