"""How a request is checked against a table: what passes, what is refused, and in which words."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from draftd.errors import RequestError
from draftd.web.dialects.field_table import Handling, Row, Table

ROWS = (
    Row("size", Handling.HONOURED, "", Annotated[int, Field(ge=1)]),
    Row("any", Handling.TRANSLATED, ""),
    Row("user", Handling.NO_EFFECT, "", str),
    Row("format", Handling.REFUSED, "not built yet", harmless=({"type": "text"}, "text")),
    Row("sound", Handling.REFUSED, "no ears"),
    Row("count", Handling.REFUSED, "one is enough", harmless=(1,), passed_on=False),
)
TABLE = Table(ROWS, elsewhere={"echo": "/v1/completions"})


def fault(fields: dict[str, Any], table: Table = TABLE, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        table.checked(fields, **options)
    assert caught.value.status == 400
    return caught.value


def test_what_is_known_passes_with_its_type_and_null_is_left_out() -> None:
    asked = {"size": 2.0, "any": [None], "user": "a", "format": {"type": "text"}, "count": 1, "sound": None}
    made = TABLE.checked(asked)
    assert made == {"size": 2, "any": [None], "user": "a", "format": {"type": "text"}, "count": 1}
    assert type(made["size"]) is int
    assert TABLE.effective(made) == {"size": 2, "any": [None]}


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({"size": 0}, None, "size must be at least 1"),
        ({"size": True}, None, "size must be a whole number"),
        (
            {"format": "json"},
            "unsupported_value",
            'format must be {"type": "text"} or "text", or left out: not built yet',
        ),
        ({"count": True}, "unsupported_value", "count must be 1, or left out: one is enough"),
        ({"sound": {}}, "unsupported_parameter", "sound is not supported: no ears"),
        ({"echo": False}, "unknown_parameter", "there is no field 'echo': it belongs to /v1/completions"),
        ({"sise": 1}, "unknown_parameter", "there is no field 'sise'; did you mean 'size'?"),
        ({"x": 1}, "unknown_parameter", "there is no field 'x'"),
    ],
)
def test_what_is_not_taken_is_named(asked: dict[str, Any], code: str | None, says: str) -> None:
    error = fault(asked)
    assert (error.param, error.code, str(error)) == (next(iter(asked)), code, says)


def test_the_place_of_an_inner_field_is_told() -> None:
    assert fault({"size": 0}, place="items[1].").param == "items[1].size"
    error = fault({"sise": 0}, place="items[1].")
    assert (error.param, str(error)) == (
        "items[1].sise",
        "there is no field 'items[1].sise'; did you mean 'items[1].size'?",
    )


def test_a_name_of_another_server_leads_to_ours() -> None:
    table = Table([Row("max_tokens", Handling.HONOURED, "")])
    assert "did you mean 'max_tokens'" in str(fault({"n_predict": 5}, table))
    for name, known in (("input", "messages"), ("messages", "input"), ("response_format", "text")):
        said = str(fault({name: 5}, Table([Row(known, Handling.HONOURED, "")])))
        assert f"did you mean '{known}'" in said  # 'image' and 'min_p' are spelt more like them
    assert "meant" not in str(fault({"enable_thinking": False}, table))


def test_a_long_name_is_not_told_in_full() -> None:
    error = fault({"x" * 10_000: 1})
    assert len(str(error)) < 200
    assert len(error.param or "") == 100


def test_another_server_gets_what_it_may_know() -> None:
    asked = {"format": "json", "sound": {}, "x": 1, "size": 2}
    assert TABLE.checked(asked, foreign=True) == asked
    assert fault({"count": 2}, foreign=True).param == "count"
    assert fault({"size": 0}, foreign=True).param == "size"


def test_an_open_object_takes_further_fields() -> None:
    assert Table(ROWS, open=True).checked({"x": 1, "size": 1}) == {"x": 1, "size": 1}
    assert fault({"sound": 1}, Table(ROWS, open=True)).param == "sound"
