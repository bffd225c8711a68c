"""Foreign servers behind a profile's `command`: whatever they do differently, clients get what was promised.

Each case is an answer as some server gives it. It is asked for as a stream and in one piece, and the joined stream
must say what the whole answer says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from draftd.web.request_body import Endpoint
from tests.harness import Served
from tests.web.foreign import (
    DONE,
    ENDPOINTS,
    HEAD,
    USAGE,
    Wire,
    asked,
    both,
    chunked,
    events,
    hello,
    in_one_piece,
    said,
    whole,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(65)]


def odd(endpoint: Endpoint, **fields: Any) -> list[dict[str, Any]]:
    """Each chunk with fields of its choice set."""
    chunks = hello(endpoint)
    for made in chunks:
        made["choices"][0].update(fields)
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    return chunks


def without(endpoint: Endpoint, *names: str) -> list[dict[str, Any]]:
    return [{key: made[key] for key in made if key not in names} for made in hello(endpoint)]


def other_form(endpoint: Endpoint) -> bytes:
    """A chat's chunks with texts, and the other way round."""
    other: Endpoint = "completions" if endpoint == "chat.completions" else "chat.completions"
    return HEAD + events(*hello(other)) + DONE


def message_in_an_event(endpoint: Endpoint) -> bytes:
    return HEAD + events(whole(endpoint)) + DONE


HELLO: dict[str, Wire] = {
    "as promised": lambda e: HEAD + events(*hello(e)) + DONE,
    "no [DONE]": lambda e: HEAD + events(*hello(e)),
    "no [DONE], usage last": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": USAGE}),
    "no end of the last line": lambda e: HEAD + events(*hello(e)).rstrip(),
    "no last chunk, no [DONE]": lambda e: chunked(events(*hello(e)), ends=False),
    "no last chunk": lambda e: chunked(events(*hello(e)) + DONE, ends=False),
    "chunked": lambda e: chunked(events(*hello(e)) + DONE, ends=True),
    "a broken chunk behind the end": lambda e: chunked(events(*hello(e)), ends=False) + b"nonsense\r\n",
    "carriage returns": lambda e: HEAD + events(*hello(e), after=b"\r\n\r\n") + b"data: [DONE]\r\n\r\n",
    "no blank": lambda e: HEAD + events(*hello(e), before=b"data:") + b"data:[DONE]\n\n",
    "a byte order mark": lambda e: HEAD + b"\xef\xbb\xbf" + events(*hello(e)) + DONE,
    "half a byte order mark": lambda e: HEAD + b"\xef\xbb\0\xbf" + events(*hello(e)) + DONE,
    "kinds of events": lambda e: HEAD + events(*hello(e), before=b"event: message\nid: 1\ndata: ") + DONE,
    "comments": lambda e: HEAD + b": OPENROUTER PROCESSING\n\n" + events(*hello(e), before=b": x\ndata: "),
    "one newline": lambda e: HEAD + events(*hello(e), after=b"\n") + b"data: [DONE]\n",
    "two lines": lambda e: HEAD + b"".join(
        b"data: " + json.dumps(made, indent=0).replace("\n", "\ndata: ").encode() + b"\n\n"
        for made in hello(e)
    ) + DONE,
    "blanks around": lambda e: HEAD + b"\n\n" + events(*hello(e), after=b" \n\n") + b"data:  [DONE] \n\n",
    "an error that is null": lambda e: HEAD + events(*[made | {"error": None} for made in hello(e)]) + DONE,
    "pings": lambda e: HEAD + events({"choices": []}, *hello(e), {"choices": None, "usage": None}) + DONE,
    "no id, no time": lambda e: HEAD + events(*without(e, "id", "created")) + DONE,
    "a number for an id": lambda e: HEAD + events(*[made | {"id": 7} for made in hello(e)]) + DONE,
    "an id each": lambda e: HEAD + events(*[made | {"id": f"x{n}"} for n, made in enumerate(hello(e))]) + DONE,
    "half a second": lambda e: HEAD + events(*[made | {"created": 1.5} for made in hello(e)]) + DONE,
    "empty reasons": lambda e: HEAD + events(*odd(e, finish_reason="")) + DONE,
    "no index": lambda e: HEAD + events(*odd(e, index=None)) + DONE,
    "null log-probabilities": lambda e: HEAD + events(*odd(e, logprobs={"content": None})) + DONE,
    "choices that are null": lambda e: HEAD + events({"choices": [None]}, *hello(e)) + DONE,
    "a second choice": lambda e: HEAD + events(*hello(e)[:1], odd(e, index=1)[0], *hello(e)[1:]) + DONE,
    "the other endpoint's form": other_form,
    "another word for stop": lambda e: HEAD + events(*hello(e)[:2], said(e, None, "eos_token")) + DONE,
    "numbers that are none": lambda e: HEAD + events(*hello(e)).replace(b'"id"', b'"p": -Infinity, "id"') + DONE,
    "usage that is none": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": 5}) + DONE,
    "usage of texts": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": {"prompt_tokens": "3"}}) + DONE,
    "JSON": lambda e: in_one_piece(json.dumps(whole(e)).encode()),
    "JSON until closed": lambda e: HEAD + json.dumps(whole(e), indent=2).encode(),
    "JSON with a mark, in pieces": lambda e: HEAD + b"\xef\xbb\xbf \n" + b"\0".join(
        json.dumps(whole(e)).encode().partition(b"created")
    ),
    "JSON without a reason": lambda e: in_one_piece(
        json.dumps(whole(e)).replace('"stop"', "null").encode(), b"text/event-stream"
    ),
    "JSON in an event": message_in_an_event,
    "created": lambda e: HEAD.replace(b"200 OK", b"201 Created") + events(*hello(e)) + DONE,
    "hints first": lambda e: b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + HEAD + events(*hello(e)) + DONE,
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", HELLO)
async def test_however_a_server_writes_it_the_answer_is_the_same(
    foreign: Served, endpoint: Endpoint, case: str
) -> None:
    told = await both(foreign, HELLO[case](endpoint), endpoint)
    message = {"role": "assistant", "content": "Hello"}
    assert told["content"] == (message if endpoint == "chat.completions" else "Hello")
    assert told["finish"] == "stop"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "usage_in",
    [
        lambda e: [*hello(e), {"choices": [], "usage": USAGE}],
        lambda e: [*hello(e), {"usage": USAGE}],
        lambda e: [*hello(e), {"choices": None, "usage": USAGE}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", usage=USAGE)],
        lambda e: [made | {"usage": USAGE} for made in hello(e)],
    ],
    ids=["alone", "no choices", "null choices", "with the end", "everywhere"],
)
async def test_usage_comes_in_a_chunk_of_its_own_to_who_asked_for_it(
    foreign: Served, endpoint: Endpoint, usage_in: Callable[[Endpoint], list[Any]]
) -> None:
    wire = HEAD + events(*usage_in(endpoint)) + DONE
    assert (await both(foreign, wire, endpoint))["usage"] == USAGE
    for wanted in (True, False):
        options = {"include_usage": wanted}
        streamed = await asked(foreign, wire, endpoint, stream=True, stream_options=options)
        alone = [event for event in streamed.events[:-1] if not event["choices"]]
        assert [event["usage"] for event in alone] == ([USAGE] if wanted else [])
    counted = (await foreign.metrics())['draftd_completion_tokens_total{profile="a"}']
    await asked(foreign, wire, endpoint, stream=False)
    assert (await foreign.metrics())['draftd_completion_tokens_total{profile="a"}'] == counted + 2


TIMINGS = {
    "cache_n": 1,
    "prompt_n": 2,
    "predicted_n": 2,
    "predicted_ms": 1.5,
    "draft_n": 4,
    "draft_n_accepted": 1,
}


@pytest.mark.fault(209)
@pytest.mark.parametrize(("told", "counted"), [({"predicted_per_second": 0.0}, False), ({}, True)])
async def test_a_speed_of_zero_cannot_be_said_and_is_not_counted(
    foreign: Served, told: dict[str, float], counted: bool
) -> None:
    series = 'draftd_tokens_per_second_count{profile="a"}'
    before = (await foreign.metrics()).get(series, 0.0)
    first, *others = hello("chat.completions")
    timed = {"choices": [], "usage": USAGE, "timings": TIMINGS | told}
    wire = HEAD + events(first) + b"\0" + events(*others, timed) + DONE
    await asked(foreign, wire, "chat.completions", stream=True)
    last = (await foreign.get("/api/requests")).json["requests"][-1]
    assert (last["tokens_per_second"] is not None) == counted
    assert (await foreign.metrics()).get(series, 0.0) == before + counted


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "timed",
    [
        lambda e: [*hello(e), {"choices": [], "usage": USAGE, "timings": TIMINGS}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", timings=TIMINGS), {"choices": [], "usage": USAGE}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", timings=TIMINGS, usage=USAGE)],
        lambda e: [*hello(e), {"choices": [], "timings": TIMINGS}],
        whole,
    ],
    ids=["with the usage", "before the usage", "with the end", "alone", "in one piece"],
)
async def test_timings_reach_the_client_in_a_chunk_that_it_gets(
    foreign: Served, endpoint: Endpoint, timed: Callable[[Endpoint], Any]
) -> None:
    """They are in llama.cpp's last chunk, the one with the usage; a client that wants no usage does not get it."""
    sent = timed(endpoint)
    if isinstance(sent, list):
        wire = HEAD + events(*sent[:3]) + b"\0" + events(*sent[3:]) + DONE
    else:
        wire = in_one_piece(json.dumps(sent | {"timings": TIMINGS}).encode())
    assert (await asked(foreign, wire, endpoint, stream=False)).json["timings"] == TIMINGS
    answer = await asked(foreign, wire, endpoint, stream=True)
    assert [event["timings"] for event in answer.events[:-1] if "timings" in event] == [TIMINGS]
    assert answer.events[-2]["timings"] == TIMINGS
    assert answer.events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_half_a_character_is_seen_as_such_and_costs_nothing_else(foreign: Served) -> None:
    made = [said("chat.completions", "caf\ufffd"), said("chat.completions", "!", "stop")]
    wire = HEAD + b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode().replace("\ufffd".encode(), b"\xc3") + b"\n\n"
        for one in made
    )
    assert (await both(foreign, wire, "chat.completions"))["content"]["content"] == "caf\ufffd!"


async def test_reasoning_is_kept_apart_whatever_stands_beside_it(foreign: Served) -> None:
    deltas = [
        {"role": "assistant", "content": None, "reasoning_content": "Hm"},
        {"content": "", "reasoning_content": "m."},
        {"content": "So", "reasoning_content": None, "tool_calls": None, "refusal": None},
        {"content": [{"type": "text", "text": "!"}], "reasoning_content": ""},
        None,
    ]
    chunks = [{"choices": [{"delta": delta, "finish_reason": ""}]} for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    told = await both(foreign, HEAD + events(*chunks), "chat.completions")
    assert told["content"] == {"role": "assistant", "content": "So!", "reasoning": "Hmm."}
