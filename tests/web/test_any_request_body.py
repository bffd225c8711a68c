"""Any body that a client may think of: mlx_lm.server takes what is made of it, or it is refused."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.profiles import Profile
from draftd.web.request_body import Endpoint, Forward, prepare
from tests.web.forwarded import CHAT, DEFAULTS, DRAFTING, ENDPOINTS, HELLO, PLAIN, TEXT
from tests.web.given import junk, profile

text = st.text(max_size=5)
words = st.text(min_size=1, max_size=5)
fields_of_openai: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1) | st.integers(0, 1),
    "max_tokens": st.integers(1, 2**40),
    "max_completion_tokens": st.integers(1, 2**40),
    "presence_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "frequency_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "seed": st.integers(-(2**63), 2**63),
    "stop": words | st.lists(words, max_size=4),
    "n": st.just(1),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
    "logprobs": st.booleans(),
    "user": text,
}
fields_of_chat: dict[str, st.SearchStrategy[Any]] = {
    "tools": st.lists(st.just({"type": "function", "function": {"name": "f", "parameters": {}}}), max_size=2),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "parallel_tool_calls": st.booleans(),
    "response_format": st.just({"type": "text"}),
    "chat_template_kwargs": st.dictionaries(st.just("enable_thinking"), st.booleans()),
}
fields_of_mlx: dict[str, st.SearchStrategy[Any]] = {
    "top_k": st.integers(0, 10**12),
    "min_p": st.floats(0, 1) | st.integers(0, 1),
    "num_draft_tokens": st.integers(0, 64),
    "repetition_penalty": st.floats(0, 3) | st.integers(0, 3),
    "repetition_context_size": st.integers(0, 100),
    "xtc_probability": st.floats(0, 1) | st.integers(0, 1),
    "xtc_threshold": st.floats(0, 0.5) | st.just(0),
}
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=2)
past_calls = st.lists(
    text.map(
        lambda arguments: {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    ),
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": text | parts,
        },
        optional={"tool_calls": past_calls | st.none(), "name": text},
    ),
    min_size=1,
    max_size=3,
)
profiles = st.sampled_from([PLAIN, DRAFTING, profile(defaults=DEFAULTS)])


def bodies(
    required: dict[str, st.SearchStrategy[Any]], *also: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with any of the fields that exist; `also` are further values that any optional field may have."""
    known = {**fields_of_openai, **fields_of_mlx, **(fields_of_chat if "messages" in required else {})}
    return st.fixed_dictionaries(required, optional={name: st.one_of(v, *also) for name, v in known.items()})


def accept(made: Forward) -> None:
    """mlx_lm.server takes the payload, and nothing in it ends the thread that generates."""
    from tests.web.mlx_handler import taken_by_mlx

    taken = taken_by_mlx(made.payload, made.endpoint)
    assert taken.refusal == ""
    assert taken.request is not None
    assert isinstance(taken.stop_words, list)
    assert all(isinstance(word, str) for word in taken.stop_words)
    fields = json.loads(made.payload)
    assert 0 <= fields.get("seed", 0) < 2**64
    assert fields.get("top_k", 0) <= 1000
    assert fields.get("xtc_threshold", 0.0) <= 0.5
    assert "logit_bias" not in fields


@pytest.mark.real
@settings(deadline=None)
@given(bodies({"messages": messages}, st.none()), profiles)
def test_whatever_openai_allows_in_a_chat_is_taken(body: dict[str, Any], to: Profile) -> None:
    accept(prepare(body, CHAT, to, "ours", "default_model", "asked-for"))


@pytest.mark.real
@settings(deadline=None)
@given(
    bodies({"prompt": st.text(min_size=1, max_size=5)}, st.none()), st.none() | st.integers(0, 5), profiles
)
def test_whatever_openai_allows_in_a_completion_is_taken(
    body: dict[str, Any], logprobs: int | None, to: Profile
) -> None:
    accept(prepare({**body, "logprobs": logprobs}, TEXT, to, "ours", "default_model", "asked-for"))


@settings(deadline=None)
@given(
    bodies({"messages": messages | junk, "prompt": text | junk}, junk),
    st.dictionaries(text, junk, max_size=2),
    st.sampled_from(ENDPOINTS),
    profiles,
)
@example({"messages": [HELLO], "xtc_probability": 10**400}, {}, CHAT, PLAIN)
def test_any_other_body_is_taken_or_refused_here(
    body: dict[str, Any], more: dict[str, Any], endpoint: Endpoint, to: Profile
) -> None:
    try:
        made = prepare({**body, **more}, endpoint, to, "ours", "default_model", "asked-for")
    except RequestError:
        return
    accept(made)
