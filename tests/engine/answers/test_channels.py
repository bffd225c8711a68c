"""The channels of a text, and that no character of it gets lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.generate import TextStateMachine

from draftd.engine.answers.channels import NORMAL, REASONING, TOOL, Channels, Piece

MACHINE = TextStateMachine(
    {
        NORMAL: [("<t>", REASONING), ("<c>", TOOL), ("<m>", NORMAL)],
        REASONING: [("</t>", NORMAL), ("<c>", TOOL)],
        TOOL: [("</c>", NORMAL)],
    }
)


def pieces(texts: list[str], initial: str = NORMAL) -> list[Piece]:
    channels = Channels(MACHINE, initial)
    found = [piece for text in texts for piece in channels.feed(text)] + channels.finish()
    return [piece for piece in found if piece.text]


def joined(found: list[Piece]) -> list[tuple[str, str, bool]]:
    """Neighbours of one channel put together."""
    out: list[tuple[str, str, bool]] = []
    for piece in found:
        if out and not piece.mark and out[-1][0] == piece.channel and not out[-1][2]:
            out[-1] = (piece.channel, out[-1][1] + piece.text, False)
        else:
            out.append((piece.channel, piece.text, piece.mark))
    return out


def test_marks_come_out_as_marks() -> None:
    assert joined(pieces(["a<t>b</", "t>c<c>{", "}</c", ">d<m>e<"])) == [
        (NORMAL, "a", False),
        (REASONING, "<t>", True),
        (REASONING, "b", False),
        (NORMAL, "</t>", True),
        (NORMAL, "c", False),
        (TOOL, "<c>", True),
        (TOOL, "{}", False),
        (NORMAL, "</c>", True),
        (NORMAL, "d", False),
        (NORMAL, "<m>", True),
        (NORMAL, "e<", False),
    ]


def test_a_text_may_begin_inside_a_channel() -> None:
    assert joined(pieces(["a</t>b"], REASONING))[0] == (REASONING, "a", False)


def test_without_marks_all_is_normal() -> None:
    channels = Channels()
    assert channels.feed("<t>a") + channels.finish() == [Piece(NORMAL, "<t>a")]


parts = st.sampled_from(["<t>", "</t>", "<c>", "</c>", "<m>", "<", "c>", "/", "a", ">"])


@given(st.lists(parts, max_size=12).map("".join), st.lists(st.integers(0, 40), max_size=8))
def test_every_character_comes_out_in_order_however_the_text_is_cut(text: str, cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(text)]
    cut = [text[a:b] for a, b in pairwise(at)]
    found = pieces(cut)
    assert "".join(piece.text for piece in found) == text
    assert joined(found) == joined(pieces([text]))
