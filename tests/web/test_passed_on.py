"""What a foreign server gets of a request that is passed on: all of it, with its own name for the model."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.profiles import ProfileSet
from draftd.web.form_model import MAX_PARTS
from draftd.web.passed_on import JSON, Given, Passed
from draftd.web.router import Refused, RoutingTable, pass_on
from tests.web.given import profile, refused

SPEECH = profile("speech", model="org/voice", command=["serve", "{port}"], aliases=["tts-1"])
CHAT = profile("chat")
FORM = 'multipart/form-data; boundary="x y"'


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--x y\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x y--\r\n"


def asked(body: bytes, kind: str = JSON, query: str = "", path: str = "/v1/audio/speech") -> Given:
    return Given(path, query, kind, body)


def test_in_json_only_the_name_of_the_model_is_changed() -> None:
    body = b'{"input": [1.0, 1e400, "\\u00e9"], "model" : "tts-1", "x": {"model": 1}}'
    given = asked(body, "application/json; charset=utf-8")
    assert given.model() == "tts-1"
    passed = given.passed_to(SPEECH)
    assert passed.payload == b'{"input":[1.0, 1e400, "\\u00e9"],"model":"org/voice","x":{"model": 1}}'
    assert (passed.profile, passed.path, passed.content_type) == (
        "speech",
        "/v1/audio/speech",
        "application/json; charset=utf-8",
    )


def test_a_body_without_a_model_gets_its_name() -> None:
    assert asked(b"{}").model() is None
    assert asked(b"{}").passed_to(SPEECH).payload == b'{"model":"org/voice"}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": tts}', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_calls_itself_json_has_to_be_an_object(body: bytes) -> None:
    with refused(400, says="must be a JSON object"):
        asked(body).model()


def test_in_a_form_only_the_name_of_the_model_is_changed() -> None:
    sound = b'\x00--x y\r\x00name="model"\r\n\r\nwhisper\r\n'
    parts = part("file", sound, '; filename="a.wav"'), part("model", b"tts-1"), part("language", b"de")
    given = asked(form(*parts), FORM)
    assert given.model() == "tts-1"
    assert given.passed_to(SPEECH).payload == form(parts[0], part("model", b"org/voice"), parts[2])


@pytest.mark.parametrize(
    "body",
    [
        form(part("modell", b"a")),
        form(part("a", b"a", '; filename="name=model.txt"')),
        form(part("a", b"a", '; filename="a; name=model ;.wav"')),
        form(part("a", b"a", r'; filename="a\"; name=model ;.wav"')),
        form(part("a", b"a", "; filename=name=model")),
        form(),
        b"",
        b"no form",
        part("model", b"never ends")[:-2],
        b'--x y\r\nContent-Disposition: form-data; name="model"--x y--',
    ],
)
def test_a_form_without_a_model_goes_as_it_is_to_the_default_profile(body: bytes) -> None:
    given = asked(body, FORM)
    assert given.model() is None
    assert given.passed_to(SPEECH).payload == body


def test_a_name_without_quotes_is_found_too() -> None:
    body = b"--x y\r\ncontent-disposition: form-data; name=model\r\n\r\na\r\n--x y--"
    assert asked(body, FORM).model() == "a"


def test_a_name_after_one_in_quotes_is_found_too() -> None:
    for before in ('filename="a; name=b"', r'filename="a\\"', "x=y"):
        head = f'--x y\r\nX: y\r\nContent-Disposition: form-data; {before};name="model"\r\nX: y\r\n\r\n'
        assert asked(head.encode() + b"a\r\n--x y--", FORM).model() == "a", before


def test_a_form_needs_a_boundary_and_has_a_bound_itself() -> None:
    with refused(400, says="must have a boundary"):
        asked(b"", "multipart/form-data").model()
    with refused(400, says=f"more than {MAX_PARTS} parts"):
        asked(form(*[part("a", b"")] * (MAX_PARTS + 1)), FORM).model()


@pytest.mark.alone
def test_parts_without_number_take_no_time() -> None:
    body = b"\r\n--x y" * 4_000_000
    began = time.monotonic()
    with refused(400):
        asked(body, FORM).model()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("piece", [b"a", b";", b'"a"', b'"', b"\\", b'; name="a"'])
@pytest.mark.alone
def test_a_long_head_takes_no_time(piece: bytes) -> None:
    head = b"--x y\r\nContent-Disposition: " + piece * 1_000_000 + b"\r\n\r\n"
    began = time.monotonic()
    assert asked(head + b"a\r\n--x y--", FORM).model() is None
    assert time.monotonic() - began < 1


def test_any_other_body_goes_as_it_is_and_the_query_names_the_model() -> None:
    given = asked(b"\x00\xff", "audio/wav", "a=1&model=tts-1&b=%20")
    assert given.model() == "tts-1"
    assert given.passed_to(SPEECH) == Passed(
        "speech", "/v1/audio/speech?a=1&model=org%2Fvoice&b=%20", b"\x00\xff", "audio/wav"
    )
    untold = asked(b"", "", "a=%20").passed_to(SPEECH)
    assert (untold.path, untold.content_type) == ("/v1/audio/speech?a=%20", "application/octet-stream")


def test_in_a_query_only_the_name_of_the_model_is_changed() -> None:
    given = asked(b"", "audio/wav", "tag=a&tag=b&%6dodel=tts-1&flag&x=%ff&tag=&model=tts-1")
    assert given.model() == "tts-1"
    passed = given.passed_to(SPEECH).path.partition("?")[2]
    assert passed == "tag=a&tag=b&model=org%2Fvoice&flag&x=%ff&tag=&model=org%2Fvoice"


@given(st.binary(max_size=200), st.sampled_from([JSON, FORM, "", "audio/wav"]), st.text(max_size=20))
def test_no_body_does_more_than_be_refused(body: bytes, kind: str, query: str) -> None:
    profiles = {"speech": SPEECH, "chat": CHAT}
    table = RoutingTable(ProfileSet(profiles), "speech")
    assert isinstance(pass_on(asked(body, kind, query), table), Passed | Refused)


@pytest.mark.parametrize("path", ["/v1/audio/../../admin", "/v1/audio/./x", "/v1/images/.."])
def test_a_path_leads_nowhere_else(path: str) -> None:
    table = RoutingTable(ProfileSet({"speech": SPEECH}), "speech")
    outcome = pass_on(asked(b"{}", path=path), table)
    assert isinstance(outcome, Refused)
    assert outcome.error.status == 404
    assert isinstance(pass_on(asked(b"{}", path="/v1/audio/a..b"), table), Passed)


def test_a_path_cannot_write_a_header() -> None:
    given = asked(b"{}", path="/v1/audio/a b\r\nX: y")
    assert given.passed_to(SPEECH).path == "/v1/audio/a%20b%0D%0AX%3A%20y"


def test_a_profile_without_a_command_has_no_such_address() -> None:
    table = RoutingTable(ProfileSet({"speech": SPEECH, "chat": CHAT}), "speech")
    outcome = pass_on(asked(b'{"model": "chat"}'), table)
    assert isinstance(outcome, Refused)
    assert outcome.profile == "chat"
    assert (outcome.error.status, outcome.error.code) == (404, "not_found")
    assert "'chat' serves chat and text completions" in str(outcome.error)
