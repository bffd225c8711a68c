"""What peers report about themselves: read with care, since anybody may answer at that address."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.peers.load_report import (
    MAX_MODELS,
    OTHERS_SLOTS,
    LoadedModel,
    LoadReport,
    WrongReportError,
    of_draftd,
    of_others,
    refusal_of,
)
from draftd.peers.peer_models import models_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def told(*models: dict[str, Any]) -> bytes:
    return json.dumps({"id": "1", "version": "9", "keepalive": 10, "models": models}).encode()


def test_a_draftd_says_what_each_model_has_to_do() -> None:
    models = (LoadedModel(name="m", aliases=("gpt",), context=4096, slots=4, open=2, takes=1.5, start=9.0),)
    report = LoadReport(id="7", version="1", keepalive=10.0, models=models)
    known = of_draftd(msgspec.json.encode(report))
    assert (known.own, known.id, known.keepalive, known.models) == (True, "7", 10.0, {"m": models[0]})


def test_figures_and_names_that_cannot_be_are_left_out() -> None:
    bad = {"slots": 0, "open": -3, "takes": -1.0, "context": -5, "aliases": ["good", "bad alias", "\x1b[2J"]}
    known = of_draftd(told({"name": "m", **bad}, {"name": "a b"}, {"name": "../x"}, {"name": ""}))
    assert known.models == {"m": LoadedModel(name="m", aliases=("good",))}
    for state in ("\x1b[31mready", "", "x" * 1000):
        assert of_draftd(told({"name": "m", "state": state})).models["m"].state == "unknown"
    many = [{"name": f"m{n}"} for n in range(MAX_MODELS + 10)]
    assert len(of_draftd(told(*many)).models) == MAX_MODELS


def test_another_server_names_its_models_and_nothing_more() -> None:
    body = {"object": "list", "data": [{"id": "org/Model:4bit"}, {"id": 5}, "x", {}]}
    assert of_others(json.dumps(body).encode()).models == {
        "org/Model:4bit": LoadedModel(name="org/Model:4bit", slots=OTHERS_SLOTS)
    }


@given(json_values)
def test_whatever_comes_is_read_or_refused(value: Any) -> None:
    for read in (of_draftd, of_others):
        try:
            read(json.dumps(value).encode())
        except WrongReportError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it need not be raised


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"\xff"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    for read in (of_draftd, of_others):
        with pytest.raises(WrongReportError):
            read(body)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "does not take our api_key (status 401)"),
        (401, b'{"error": {"message": "no"}}', "does not take our api_key (status 401): no"),
        (403, b'{"error": "the Host"}', "refuses requests from here (status 403): the Host"),
        (403, b'{"error": "\\u001b[2J"}', "refuses requests from here (status 403): \\x1b[2J"),
    ],
)
def test_why_we_are_not_let_in_is_told_in_the_peers_words(status: int, body: bytes, words: str) -> None:
    assert refusal_of(status, body) == words


def test_a_model_of_several_peers_has_all_aliases_and_the_shortest_context() -> None:
    one = of_draftd(told({"name": "m", "aliases": ["a"], "context": 8192}, {"name": "mine"}))
    other = of_draftd(told({"name": "m", "aliases": ["b", "a"], "context": 4096}))
    third = of_others(b'{"data": [{"id": "m"}]}')
    models = models_of({"one": one, "other": other})
    assert (models["m"].aliases, models["m"].context, models["m"].peer) == (("a", "b"), 4096, "one")
    assert all(model.own for model in models.values())
    assert not models_of({"one": one, "third": third})["m"].own
