"""A recorded session consists of what each request adds, and of the beginnings of long texts."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.sessions.recording import MAX_TEXT, cut, differences, whole

requests = st.fixed_dictionaries(
    {"input": st.lists(st.integers(0, 3), max_size=5), "model": st.sampled_from("ab"), "store": st.booleans()}
)


@given(st.lists(requests, max_size=5))
def test_what_they_add_makes_them_again(made: list[dict[str, Any]]) -> None:
    assert whole(differences(made)) == made


def test_texts_that_differ_still_do_when_they_are_cut() -> None:
    long = "x" * MAX_TEXT
    texts = {cut({"a": [long + end]})["a"][0] for end in ("", "y", "z")}
    assert len(texts) == 3
    assert all(text.startswith(long) and len(text) < MAX_TEXT + 20 for text in texts)
