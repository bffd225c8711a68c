"""What is believed of machines: their queues between two questions, their caches, how fast they are."""

from __future__ import annotations

import time

import pytest

from draftd.peer_tables import PeerTable
from draftd.peers.fleet import Fleet
from draftd.peers.load_report import Known, LoadedModel
from draftd.peers.machines import SLEEPERS_START, Machine, Peer
from draftd.peers.measures import Figures, Measures
from draftd.peers.prefixes import BLOCK, Prompt, prompt_of

LONG = prompt_of("m", b"".join(bytes([n % 251]) * 64 for n in range(BLOCK)))
UP = LoadedModel(name="m", slots=2)


def peer() -> Peer:
    return Peer(PeerTable(url="http://127.0.0.1:9"), lambda: None)


def known(*models: LoadedModel, start: str = "1") -> Known:
    return Known(True, {model.name: model for model in models}, start, 10.0)


def figures(cached: int, prompt: int = LONG.size // 4) -> Figures:
    return Figures(
        prompt_tokens=prompt, cached_tokens=cached, tokens=100, tokens_per_second=40.0, first_token=2.0,
        seconds=5.0, before=0, slots=2,
    )  # fmt: skip


def load_of(one: Peer) -> LoadedModel | None:
    return one.load("m", 0.0)


def test_the_queue_is_what_others_have_there_and_what_we_have_sent_since() -> None:
    one = peer()
    assert load_of(one) is None  # it has not answered yet
    with one.serves("m"):
        one.reported(known(LoadedModel(name="m", slots=2, open=3)))  # one of the three is ours
        with one.serves("m"):
            assert (load := load_of(one)) is not None
            assert load.open == 4
    assert (load := load_of(one)) is not None
    assert (load.open, one.open, one.given) == (2, 0, 2)


@pytest.mark.fault(185)
def test_of_models_that_a_peer_has_no_more_nothing_is_kept() -> None:
    one = peer()
    for turn in range(3):
        one.reported(known(LoadedModel(name=f"m{turn}", open=2)))
    assert [one.open_for(f"m{turn}") for turn in range(3)] == [0, 0, 2]


@pytest.mark.parametrize("state", ["failed", "stopped", "stopping", "backoff"])
def test_a_model_whose_worker_cannot_serve_is_no_place(state: str) -> None:
    fleet = Fleet([PeerTable(url="http://127.0.0.1:9")], lambda: None)
    fleet.peers[0].reported(known(LoadedModel(name="m", state=state)))
    assert fleet.choose("m", LONG, None, ()) is None
    assert fleet.why_nobody("m") == (f"127.0.0.1:9: its worker is {state}", 1.0)


def test_one_that_is_full_is_left_out_for_a_moment() -> None:
    one = peer()
    one.reported(known(UP))
    one.leave_out("m", 60.0)
    assert load_of(one) is None
    assert one.load("m", 1e12) is not None
    one.reported(known(UP))  # its queue is known anew
    assert load_of(one) is not None


def test_a_conversation_is_warm_where_it_was_answered_until_that_machine_starts_anew() -> None:
    one = peer()
    one.reported(known(UP))
    assert one.place(UP, LONG).warm == 0
    one.learn("m", LONG, figures(0), tells_cached=True)
    warm = one.place(UP, LONG).warm
    assert warm == pytest.approx(LONG.size / 4, rel=0.05)
    assert one.place(LoadedModel(name="other"), LONG).warm == 0
    one.reported(known(UP))
    assert one.place(UP, LONG).warm == warm
    one.reported(known(UP, start="2"))
    assert one.place(UP, LONG).warm == 0


def test_what_an_answer_says_of_the_cache_counts_more_than_what_is_remembered() -> None:
    for tells, kept in ((True, False), (False, True)):
        one, older = Machine(), Prompt(10 * BLOCK, tuple(range(10)))
        for prompt in (older, LONG):
            one.learn("m", prompt, figures(prompt.size // 4, prompt.size // 4), tells_cached=True)
        one.learn("m", LONG, figures(0), tells_cached=tells)
        assert (one.place(UP, older).warm > 0) is kept  # used before it, so gone before it
        assert one.place(UP, LONG).warm > 0  # it has read it again


def test_speeds_are_those_of_a_request_alone() -> None:
    crowded = Measures()
    crowded.add(Figures(1000, 200, 100, 20.0, 4.0, 9.0, before=1, slots=2))
    assert (crowded.writes, crowded.reads, crowded.takes, crowded.answer) == (30.0, 300.0, 9.0, 100)
    waited = Measures()
    waited.add(Figures(1000, 200, 100, 20.0, 40.0, 90.0, before=2, slots=2))
    assert (waited.reads, waited.takes) == (None, None)  # the time of others is in them


def test_a_sleeping_model_takes_as_long_as_its_last_start() -> None:
    one = Machine()
    asleep = LoadedModel(name="m", state="asleep", start=7.0)
    assert one.place(asleep, LONG).start == 7.0
    assert one.place(LoadedModel(name="m", state="asleep"), LONG).start == SLEEPERS_START
    assert one.place(UP, LONG).start == 0.0


def test_a_peer_that_has_been_well_for_long_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[None] = []
    one = Peer(PeerTable(url="http://127.0.0.1:9"), lambda: changes.append(None))
    one.answered()
    now = time.monotonic() + 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one.answered()
    before = len(changes)
    for _ in range(3):
        one.answered()
    assert len(changes) == before
