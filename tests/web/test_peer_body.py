"""What another machine is sent: the client's request, with what the profile here adds to it, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from draftd.errors import RequestError
from draftd.peers.peer_models import PeerModel
from draftd.profiles import ProfileSet
from draftd.web.request_body import Endpoint
from draftd.web.router import Routed, RoutingTable, route
from tests.harness import chat
from tests.web.given import profile

PROMPT = "Be brief."
OWN = PeerModel("m", ("alias",), 4096, True, "mini:8080")
OTHERS = PeerModel("x", (), None, False, "gpu:8000")


def sent(body: dict[str, Any], table: RoutingTable, dialect: Endpoint = "chat.completions") -> dict[str, Any]:
    """What a peer would be sent of a body."""
    routed = route(json.dumps(body).encode(), dialect, table)
    assert isinstance(routed, Routed), routed
    assert routed.away is not None
    assert isinstance(routed.away.payload, bytes)
    made: dict[str, Any] = json.loads(routed.away.payload)
    return made


def here(mode: str = "prepend") -> RoutingTable:
    """A machine with the model `m`, which a peer has too, and `x` that only a peer has."""
    own = profile("m", system_prompt="p", system_prompt_mode=mode, defaults={"temperature": 0.3})
    return RoutingTable(ProfileSet({"m": own}, {"p": PROMPT}), "m", {"m": OWN, "x": OTHERS})


def test_defaults_and_prompt_of_the_profile_here_are_filled_in_and_drafting_is_left_to_the_peer() -> None:
    made = sent(chat("hi", model="m", stream=False), here())
    assert made["messages"][0] == {"role": "system", "content": PROMPT}
    assert (made["temperature"], made["model"], made["stream"]) == (0.3, "m", True)
    assert made["stream_options"] == {"include_usage": True}
    assert "num_draft_tokens" not in made
    assert sent(chat("hi", num_draft_tokens=5, drafters=["lookup"]), here())["drafters"] == ["lookup"]


@pytest.mark.parametrize("mode", ["default", "prepend", "replace", "off"])
def test_a_peer_with_the_same_profile_adds_nothing_a_second_time(mode: str) -> None:
    for messages in (
        [{"role": "user", "content": "hi"}],
        [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hi"}],
    ):
        once = sent({"model": "m", "messages": messages}, here(mode))
        twice = sent(once, here(mode))
        assert twice["messages"] == once["messages"]


def test_what_only_a_draftd_understands_does_not_reach_another_server() -> None:
    made = sent(chat(model="x", num_draft_tokens="auto", count_only=True, special=1), here())
    assert made.keys() == {"model", "messages", "stream", "stream_options", "max_tokens", "special"}
    assert made["max_tokens"] == 1
    refused = route(json.dumps(chat(model="x", drafters=[])).encode(), "chat.completions", here())
    assert isinstance(getattr(refused, "error", None), RequestError)


def test_a_request_that_a_peer_could_not_honour_stays_here() -> None:
    table = RoutingTable(here().profiles, "m", {"m": PeerModel("m", (), None, False, "gpu:8000")})
    routed = route(json.dumps(chat(model="m", drafters=[])).encode(), "chat.completions", table)
    assert isinstance(routed, Routed)
    assert routed.away is None


def test_turns_of_a_conversation_begin_alike_and_other_tools_do_not() -> None:
    def chain(**fields: Any) -> tuple[int, ...]:
        routed = route(json.dumps({"model": "x", **fields}).encode(), "chat.completions", here())
        assert isinstance(routed, Routed)
        assert routed.away is not None
        return routed.away.prompt.chain

    first = [{"role": "system", "content": "s" * 3000}, {"role": "user", "content": "u" * 3000}]
    later = [*first, {"role": "assistant", "content": "a" * 3000}, {"role": "user", "content": "more"}]
    one, other = chain(messages=first, temperature=0), chain(messages=later, temperature=1)
    assert one == other[: len(one)]
    assert len(one) == 6000 // 512
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chain(messages=first, tools=tools)[0] != one[0]


@pytest.mark.parametrize(
    ("name", "found"), [("x", "x"), ("speculative/x", "x"), ("m", None), ("alias", "m"), ("y", None)]
)
def test_names_here_come_before_those_of_peers(name: str, found: str | None) -> None:
    model = here().only_elsewhere(name)
    assert (model.name if model else None) == found
