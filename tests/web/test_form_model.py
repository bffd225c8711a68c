"""The name of a model is found in a form however its pieces fall; `test_passed_on` tells which name that is."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from draftd.web.form_model import MAX_HEAD, FormModel

KIND = "multipart/form-data; boundary=xy"
NAMED = b'Content-Disposition: form-data; name="model"\r\n\r\n'
pieces = st.lists(
    st.sampled_from([b"--xy", b"\r\n--xy", b"\r\n", NAMED, b"\r\n\r\n", b"a", b"--", b"-", b"x" * MAX_HEAD])
    | st.binary(max_size=5),
    max_size=12,
)


def place_in(*some: bytes) -> slice | None:
    form = FormModel(KIND)
    for piece in some:
        form.take(piece)
    return form.place


@given(pieces)
@example([b"--xy\r\n", NAMED, b"m", b"\r\n--xy--"])
@example([b"--xy\r\n", NAMED, b"--xy--"])
def test_it_does_not_matter_how_a_form_is_cut(some: list[bytes]) -> None:
    whole = b"".join(some)
    place = place_in(whole)
    assert place_in(*some) == place
    assert place_in(*[whole[n : n + 1] for n in range(min(len(whole), 300))], whole[300:]) == place
    if place is not None:
        assert whole[: place.start].endswith(NAMED)
        assert whole[place.stop :].startswith(b"\r\n--xy")
        assert b"\r\n--xy" not in whole[place]


def test_the_first_name_counts() -> None:
    form = re.sub(rb"\n *", b"\r\n", b"--xy\n%ba\n--xy\n%bb\n--xy--\n") % (NAMED, NAMED)
    place = place_in(form)
    assert place is not None
    assert form[place] == b"a"
