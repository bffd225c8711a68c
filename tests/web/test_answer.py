"""One answer of a worker, chunk by chunk: checked, made into what was promised, and joined."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.errors import DraftdError
from draftd.web.answer import Answer
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.answer_stream import to_event
from draftd.web.request_body import Endpoint
from tests.web.given import junk

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "delta": {"role": "assistant", **(delta or {})}}
    return {"id": "id-1", "created": 1, "model": "default_model", "choices": [choice], **fields}


def text_chunk(text: str) -> dict[str, Any]:
    return {"id": "id-1", "created": 1, "choices": [{"index": 0, "finish_reason": None, "text": text}]}


def usage_chunk() -> dict[str, Any]:
    return {
        "id": "id-1",
        "created": 1,
        "object": "chat.completion",
        "model": "m",
        "choices": [],
        "usage": USAGE,
    }


def took(
    *chunks: dict[str, Any] | bytes, endpoint: Endpoint = "chat.completions"
) -> tuple[Answer, list[dict[str, Any] | None]]:
    """The answer after these events, and what each became for the client."""
    answer = Answer(endpoint, "asked-for")
    return answer, [
        answer.take(each if isinstance(each, bytes) else json.dumps(each).encode()) for each in chunks
    ]


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [("chat.completions", "chat.completion.chunk"), ("completions", "text_completion")],
)
def test_each_chunk_bears_the_name_that_the_client_used_and_the_right_kind(
    endpoint: Endpoint, kind: str
) -> None:
    chat = endpoint == "chat.completions"
    for sent in (chunk({"content": "a"}) if chat else text_chunk("a"), usage_chunk()):
        (told,) = took(sent, endpoint=endpoint)[1]
        assert told == {**sent, "model": "asked-for", "object": kind}


def deltas(*sent: dict[str, Any]) -> list[Any]:
    return [told and told["choices"][0]["delta"] for told in took(*sent)[1]]


def test_the_role_comes_once_with_whatever_chunk_has_it_first() -> None:
    assert deltas(chunk({"content": "a"}), chunk({"content": "b"}), chunk(finish="stop")) == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]
    bare = chunk({"content": "a"})
    del bare["choices"][0]["delta"]["role"]
    assert deltas(bare, chunk({"content": "b"}), chunk({"content": "c"})) == [
        {"content": "a"},
        {"role": "assistant", "content": "b"},
        {"content": "c"},
    ]


@pytest.mark.parametrize(
    ("sent", "complete"),
    [
        ([chunk({"content": "a"}), chunk(finish="stop"), b"[DONE]"], True),
        ([chunk({"content": "a"}, finish="length"), usage_chunk(), b"[DONE]"], True),
        ([chunk(finish="stop")], False),
        ([chunk({"content": "a"}), b"[DONE]"], False),
        ([chunk({"content": "a"}), usage_chunk(), b"[DONE]"], False),
        ([b"[DONE]"], False),
        ([], False),
    ],
)
def test_an_answer_is_complete_with_a_finish_reason_and_the_end_mark(
    sent: list[dict[str, Any] | bytes], complete: bool
) -> None:
    assert took(*sent)[0].complete is complete


def test_the_end_mark_is_no_chunk() -> None:
    assert took(b"[DONE]")[1] == [None]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[DONE",
        b"[" * 100_000,
        b"5",
        b"[]",
        b'"text"',
        b'{"choices": {}}',
        b'{"choices": ["a"]}',
        b'{"choices": [{"delta": "a"}]}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [{"delta": {"reasoning": []}}]}',
        b'{"choices": [{"delta": {"tool_calls": {"a": 1}}}]}',
        b'{"choices": [{"delta": {"tool_calls": [5]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": []}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"function": "f"}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": [1]}}]}}]}',
        b'{"choices": [{"delta": {"content": [{"type": "image"}]}}]}',
        b'{"choices": [{"index": []}]}',
        b'{"choices": [{"finish_reason": 5}]}',
        b'{"choices": [{"text": 5}]}',
        b'{"choices": [{"delta": "\\ud800"}]}',
        b'{"choices": ["\\ud800"]}',
    ],
)
def test_what_is_no_chunk_breaks_the_answer_and_is_not_quoted(data: bytes) -> None:
    with pytest.raises(BrokenAnswerError) as caught:
        took(data)
    assert data.decode("latin-1") not in str(caught.value) or not data


@pytest.mark.parametrize(
    "sent",
    [
        {"error": None, **chunk({"content": "a"})},
        chunk({"content": "a", "tool_calls": None, "reasoning": None}),
        chunk({"content": "a"}, usage=None),
        {"choices": [{"text": "a", "finish_reason": None}]},
        chunk({"content": ["a", None, {"type": "text", "text": None}]}),
        chunk({"content": "a", "role": 5}),
        {"choices": [None, {"delta": {"content": "a"}, "finish_reason": "null"}]},
        *(
            {"choices": [{"index": index, "delta": {"content": "a"}}]}
            for index in (None, 0, 0.0, "0", "first")
        ),
    ],
)
def test_what_other_servers_send_in_place_of_nothing_does_no_harm(sent: dict[str, Any]) -> None:
    answer, chunks = took(sent, b"null", chunk(finish="stop"))
    assert answer.whole()["choices"][0]["message"] == {"role": "assistant", "content": "a"}
    assert chunks[0] is not None
    assert chunks[0]["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("index", [1, 1.0, "1"])
def test_a_second_choice_is_left_out_however_its_index_is_written(index: object) -> None:
    answer, _ = took(
        {"choices": [{"index": index, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]},
        chunk(finish="stop"),
    )
    assert answer.whole()["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("mark", [b"[DONE]", b" [done] ", b'"[DONE]"'])
def test_the_end_mark_as_servers_write_it(mark: bytes) -> None:
    answer, _ = took(chunk({"content": "a"}, finish="stop"), mark)
    assert answer.complete


def or_junk(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(right, right, junk)


words = or_junk(st.text(max_size=3) | st.none())
call = st.fixed_dictionaries(
    {},
    optional={
        "index": or_junk(st.integers(0, 2)),
        "id": words,
        "function": or_junk(st.fixed_dictionaries({}, optional={"name": words, "arguments": words})),
    },
)
delta = st.fixed_dictionaries(
    {},
    optional={
        "role": words,
        "content": words,
        "reasoning": words,
        "tool_calls": or_junk(st.lists(or_junk(call))),
    },
)
logprobs = or_junk(st.fixed_dictionaries({}, optional={"content": or_junk(st.lists(junk)), "refusal": junk}))
choice = st.fixed_dictionaries(
    {}, optional={"delta": or_junk(delta), "text": words, "finish_reason": words, "logprobs": logprobs}
)
odd_chunk = or_junk(
    st.fixed_dictionaries(
        {},
        optional={
            "choices": or_junk(st.lists(or_junk(choice), max_size=2)),
            "usage": or_junk(st.just(USAGE)),
            "error": junk,
            "id": junk,
            "created": junk,
        },
    )
)


@given(st.lists(odd_chunk, max_size=4), st.sampled_from(["chat.completions", "completions"]))
def test_any_json_is_either_a_chunk_or_a_broken_answer(chunks: list[Any], endpoint: Endpoint) -> None:
    answer = Answer(endpoint, "asked-for")
    for each in chunks:
        try:
            told = answer.take(json.dumps(each).encode())
        except (BrokenAnswerError, DraftdError):
            return
        assert told is not None
        to_event(told)
    to_event(answer.whole())


# --- whole answers ------------------------------------------------------------------------------------------


def calls(*written: tuple[str, str], streamed: bool) -> list[dict[str, Any]]:
    """Tool calls as mlx_lm.server gives them: whole, with an index if streamed."""
    return [
        {"function": {"name": name, "arguments": arguments}, "type": "function", "id": f"call-{index}"}
        | ({"index": index} if streamed else {})
        for index, (name, arguments) in enumerate(written)
    ]


texts = st.lists(st.text(max_size=4), max_size=4)


@pytest.mark.real
@given(texts, texts, st.lists(st.tuples(st.just("find"), st.just('{"a": 1}')), max_size=3))
def test_a_chat_put_together_equals_one_that_was_not_streamed(
    contents: list[str], reasonings: list[str], written: list[tuple[str, str]]
) -> None:
    from tests.web.mlx_handler import mlx_answers

    parts: list[dict[str, Any]] = [{"text": "", "reasoning_text": reasoning} for reasoning in reasonings]
    parts += [{"text": content} for content in contents]
    parts += [{"text": "", "tool_calls": [each]} for each in calls(*written, streamed=True)]
    reason = "tool_calls" if written else "stop"
    parts += [{"text": "", "finish_reason": reason}]
    streamed = [mlx_answers(True, "chat.completions", **{"finish_reason": None, **part}) for part in parts]
    whole = mlx_answers(
        False,
        "chat.completions",
        text="".join(contents),
        reasoning_text="".join(reasonings),
        tool_calls=calls(*written, streamed=False),
        finish_reason=reason,
        prompt_token_count=3,
        completion_token_count=5,
    )
    whole["choices"][0]["logprobs"] = None
    assert took(*streamed, usage_chunk(), b"[DONE]")[0].whole() == {**whole, "model": "asked-for"}


def test_log_probabilities_are_joined_in_both_forms() -> None:
    def told(endpoint: Endpoint, *logprobs: Any) -> Any:
        chunks = [chunk({"content": "a"}) for _ in logprobs]
        for made, each in zip(chunks, logprobs, strict=True):
            made["choices"][0]["logprobs"] = each
        return took(*chunks, chunk(finish="stop"), endpoint=endpoint)[0].whole()["choices"][0]["logprobs"]

    one, two = {"token": "a", "logprob": 0.0}, {"token": "b", "logprob": -1.0}
    chat = ({"content": [one], "refusal": None}, None, {"content": [two], "refusal": None})
    assert told("chat.completions", *chat) == {"content": [one, two], "refusal": None}
    text = ({"tokens": ["a"], "text_offset": [0]}, {"tokens": ["b"], "text_offset": [1]})
    assert told("completions", *text) == {"tokens": ["a", "b"], "text_offset": [0, 1]}
    assert told("chat.completions", None) is None
    odd: list[Any] = ["x", {"content": "x"}, {"content": {"a": 1}}]
    for each in odd:
        with pytest.raises(BrokenAnswerError):
            told("chat.completions", each)


@pytest.mark.real
@given(texts)
def test_a_text_put_together_equals_one_that_was_not_streamed(contents: list[str]) -> None:
    from tests.web.mlx_handler import mlx_answers

    streamed = [mlx_answers(True, "completions", text=text, finish_reason=None) for text in contents]
    streamed.append(mlx_answers(True, "completions", text="", finish_reason="length"))
    whole = mlx_answers(
        False,
        "completions",
        text="".join(contents),
        finish_reason="length",
        prompt_token_count=3,
        completion_token_count=5,
    )
    whole["choices"][0]["logprobs"] = None
    answer, _ = took(*streamed, usage_chunk(), b"[DONE]", endpoint="completions")
    assert answer.whole() == {**whole, "model": "asked-for"}


@given(st.lists(st.tuples(st.integers(0, 2), st.text("ab{}", max_size=3)), min_size=1, max_size=8))
def test_pieces_of_tool_calls_are_joined_by_their_index(pieces: list[tuple[int, str]]) -> None:
    begun = [
        chunk({"tool_calls": [{"index": i, "id": f"id-{i}", "function": {"name": f"f{i}"}}]})
        for i in (2, 0, 1)
    ]
    more = [chunk({"tool_calls": [{"index": i, "function": {"arguments": text}}]}) for i, text in pieces]
    message = took(*begun, *more)[0].whole()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {
            "id": f"id-{index}",
            "type": "function",
            "function": {"name": f"f{index}", "arguments": "".join(text for i, text in pieces if i == index)},
        }
        for index in range(3)
    ]


def test_the_last_word_on_usage_and_finish_counts() -> None:
    first = chunk({"content": "a"}, usage={"prompt_tokens": 3})
    answer, _ = took(first, chunk(finish="stop"), chunk(), usage_chunk(), chunk())
    assert (answer.finish_reason, answer.usage) == ("stop", USAGE)


@pytest.mark.parametrize(("calls", "reason"), [([], "stop"), ([{"index": 0, "id": "a"}], "tool_calls")])
@pytest.mark.parametrize("given", ["stop", "tool_calls"])
def test_the_end_speaks_of_tool_calls_just_if_there_is_one(calls: list[Any], reason: str, given: str) -> None:
    """Otherwise OpenCode asks again for ever (measured: 73 times in 200 s), or does not make the call."""
    answer = Answer("chat.completions", "m")
    choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": given}
    sent = answer.take(json.dumps({"choices": [choice]}).encode())
    assert sent is not None
    assert sent["choices"][0]["finish_reason"] == answer.finish_reason == reason


@pytest.mark.fault(170)
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (USAGE | {"prompt_tokens": "3", "completion_tokens": -1}, (0, 0, 8)),
        ({"prompt_tokens": [3], "completion_tokens": 5.0, "total_tokens": None}, (0, 5, 5)),
        ({"prompt_tokens": 2**60, "completion_tokens": True}, (0, 0, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "cost": "0.1"}, (3, 5, 8)),
        (USAGE | {"prompt_tokens_details": 5, "completion_tokens_details": ["x"]}, (3, 5, 8)),
    ],
)
def test_a_usage_has_counts_whatever_a_server_puts_there(
    said: dict[str, Any], told: tuple[int, int, int]
) -> None:
    answer, (sent, *_) = took(chunk({"content": "a"}, "stop", usage=said))
    assert sent is not None
    usage = answer.whole()["usage"]
    assert sent["usage"] == usage
    assert tuple(usage[f"{name}_tokens"] for name in ("prompt", "completion", "total")) == told
    assert not [name for name in usage if name.endswith("_details")]
    assert usage.get("cost") == said.get("cost")


@pytest.mark.fault(170)
def test_details_of_a_usage_are_counts_too() -> None:
    details = {"cached_tokens": 1, "audio_tokens": None, "odd_tokens": "x"}
    answer, _ = took(chunk({}, "stop", usage={**USAGE, "prompt_tokens_details": details}))
    assert answer.usage == {**USAGE, "prompt_tokens_details": {"cached_tokens": 1}}
    assert answer.cached_tokens == 1


def test_a_refusal_is_kept_as_one() -> None:
    answer, _ = took(chunk({"refusal": "I "}), chunk({"refusal": "won't", "content": None}, "stop"))
    message = answer.whole()["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I won't")
