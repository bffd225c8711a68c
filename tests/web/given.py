"""What the tests of the front door start from: profiles, refusals and odd JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.profiles import Profile


def profile(name: str = "small", **keys: Any) -> Profile:
    return Profile.model_validate({"name": name, "model": "org/model", **keys})


@contextmanager
def refused(status: int, *, param: str | None = None, says: str | None = None) -> Iterator[None]:
    """The client gets `status` and the field at fault, in words that contain `says`."""
    with pytest.raises(RequestError, match=says) as caught:
        yield
    assert (caught.value.status, caught.value.param) == (status, param)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
