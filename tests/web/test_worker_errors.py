"""Errors of workers: any body becomes an error that can be sent, with a status that clients know."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from draftd.errors import RequestError, WorkerError
from draftd.web.error_bodies import error_body, error_headers, status_of
from draftd.web.worker_errors import error_in, refusal
from tests.web.given import junk

FIELDS = ("error", "detail", "message", "msg", "type", "code", "param", "object", "error_type", "loc")
body = st.recursive(
    junk,
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner) | st.lists(inner, max_size=2),
    max_leaves=8,
)
headers = st.dictionaries(st.sampled_from(["retry-after", "x-should-retry"]), st.text(max_size=40))


@given(
    st.integers(300, 599),
    headers,
    body.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50),
)
def test_any_refusal_is_an_error_in_openais_form(status: int, headers: dict[str, str], raw: bytes) -> None:
    _expect_form(refusal(status, headers, raw, now=0.0))


@given(st.dictionaries(st.sampled_from(FIELDS), body))
def test_any_object_makes_an_error_in_openais_form(value: dict[str, Any]) -> None:
    _expect_form(error_in(value))


def _expect_form(error: Exception) -> None:
    assert isinstance(error, RequestError | WorkerError)
    assert 400 <= status_of(error) < 600
    assert status_of(error) not in {401, 403, 407, 500}
    fields = error_body(error)["error"]
    assert isinstance(fields["message"], str)
    assert fields["message"]
    assert isinstance(fields["type"], str)
    assert all(isinstance(fields[name], str | None) for name in ("code", "param"))
    assert all(value.isdecimal() or value == "false" for value in error_headers(error).values())
