"""A bias on tokens that there are, and on others."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.logit_bias import checked, vocabulary
from draftd.protocol import LOGIT_BIAS_FIELD
from tests.engine.served import Engine, turn

JSON = {"Content-Type": "application/json"}


def model(**args: Any) -> SimpleNamespace:
    return SimpleNamespace(args=SimpleNamespace(**args))


def test_a_bias_is_taken_by_token() -> None:
    assert checked({"0": 1, "9": -100.5}, 10) == {0: 1.0, 9: -100.5}


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        ({"10": 1}, "token 10, and this model has the tokens 0 to 9"),
        ({"-1": 1}, "token -1"),
        ({"x": 1}, "must give"),
        ({"1": None}, "must give"),
        ([1], "must give"),
    ],
)
def test_what_is_no_bias_on_known_tokens_is_refused(bias: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        checked(bias, 10)


def test_the_smaller_vocabulary_counts_and_each_must_be_known() -> None:
    small, large = model(vocab_size=8), model(text_config={"vocab_size": 9})
    assert vocabulary(large, None) == 9
    assert vocabulary(large, small) == 8
    for unknown in (model(), model(text_config={}), model(vocab_size="8")):
        with pytest.raises(ValueError, match="does not say"):
            vocabulary(small, unknown)
    with pytest.raises(ValueError, match="loaded"):
        vocabulary(None, None)


@pytest.mark.real
def test_an_engine_refuses_an_unknown_token_and_heeds_a_known_one(drafted: Engine) -> None:
    asked: dict[str, Any] = {"prompt": turn("Hello!"), "max_tokens": 2}
    free = drafted.ask("/v1/completions", **asked)["choices"][0]["text"]
    unknown = (("999999", b"token 999999"), ("-1", b"token -1"), ("2000000000", b"token 2000000000"))
    for field in (LOGIT_BIAS_FIELD, "logit_bias"):
        for token, says in unknown:
            status, answer = drafted.post("/v1/completions", json.dumps(asked | {field: {token: 5}}), JSON)
            assert status == 400
            assert says in answer
    forced = drafted.ask("/v1/completions", **asked, **{LOGIT_BIAS_FIELD: {"65": 1000}})["choices"][0]["text"]
    assert forced[0] * 2 == forced != free
