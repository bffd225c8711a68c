"""Guard: which requests are let in, by Host, Origin, token and content type."""

import hmac

import pytest

from draftd.errors import ConfigError
from draftd.peer_tables import is_loopback
from draftd.web.guard import Guard, host_name, make_guard
from tests.web.given import refused

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
LOCAL = {"Host": "localhost:8080"}
KEY = "clé-of-32-letters"


def guard(
    host: str = "127.0.0.1", hosts: tuple[str, ...] = (), origins: tuple[str, ...] = (), key: str = ""
) -> Guard:
    return make_guard(host, hosts, origins, key)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
        "box.local:8080",
        "BOX.local",
        "[fe80::1]:8080",
    ],
)
def test_a_host_that_is_ours_is_let_in(host: str) -> None:
    guard(hosts=("Box.local", "fe80::1")).check("GET", "/v1/models", {"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8080",
        "evil.com",
        "evil.com:8080",  # DNS rebinding: its owner points the name to 127.0.0.1
        "localhost.evil.com",
        "localhost.evil.com:8080",
        "evil.localhost",
        "127.0.0.1.evil.com",
        "127.0.0.2",
        "0.0.0.0",
        "[::2]:8080",
        "[::ffff:127.0.0.1]",
        "::1",
        "[]",
        "[::1]evil.com",
        "[::1].evil.com:8080",
        "[::1]:",
        "[::1",
        "[localhost]",
        "[127.0.0.1]@evil.com",
        "127.0.0.1:80:80",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:8080evil.com",
        "127.0.0.1:80@evil.com",
        "user@127.0.0.1",
        "user:127.0.0.1@evil.com",
        "localhost.",
        "localhost, evil.com",
        "localhost/evil.com",
        "localhost#",
        "localhost\t",
        "localhost\n",
        "127.0.0.1:８０８０",
        " localhost",
        "192.168.1.7:8080",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz"])
def test_a_foreign_host_is_kept_out(host: str, path: str) -> None:
    with refused(403, says="Host"):
        guard().check("GET", path, {"Host": host})


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "::", ""])
def test_a_missing_host_is_kept_out_whatever_the_address(listen: str) -> None:
    with refused(403, says="Host"):
        guard(listen, hosts=("",), key=KEY).check("GET", "/healthz", {})


@pytest.mark.parametrize("listen", ["192.168.1.7", "Box.Local", "127.0.0.2", "0.0.0.0", "::"])
def test_the_address_listened_on_is_a_host_of_ours_unless_it_means_every_address(listen: str) -> None:
    every = listen in {"0.0.0.0", "::"}
    own = guard(listen, key=KEY).hosts - guard().hosts
    assert own == (set() if every else {listen.lower()})


@pytest.mark.parametrize(
    "origin", ["http://localhost:8080", "https://localhost:8080", "http://app.local:3000"]
)
def test_our_own_and_allowed_origins_are_let_in(origin: str) -> None:
    guard(origins=("http://app.local:3000",)).check("GET", "/v1/models", {**LOCAL, "Origin": origin})


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.com",
        "http://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://localhost:8080.evil.com",
        "http://localhost:8080/",
        "file://",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz"])
def test_a_foreign_origin_is_kept_out(origin: str, path: str) -> None:
    with refused(403, says="origin"):
        guard(origins=("http://app.local:3000",)).check("GET", path, {**LOCAL, "Origin": origin})


def test_a_rebound_name_is_no_origin_of_its_own() -> None:
    with refused(403, says="Host"):
        guard().check("GET", "/v1/models", {"Host": "evil.com:8080", "Origin": "http://evil.com:8080"})


@pytest.mark.parametrize("authorization", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_the_right_token_is_let_in(authorization: str) -> None:
    guard(key=f" {KEY}\n").check("GET", "/v1/models", {**LOCAL, "Authorization": authorization})


@pytest.mark.parametrize("more", [{}, {"Authorization": "Bearer guess"}])
def test_the_header_of_anthropic_s_clients_counts_as_well(more: dict[str, str]) -> None:
    guard(key=KEY).check("GET", "/v1/models", {**LOCAL, "X-Api-Key": KEY, **more})
    with refused(401):
        guard(key=KEY).check("GET", "/v1/models", {**LOCAL, "X-Api-Key": "guess", **more})


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer{KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY} {KEY}",
        "Bearer 钥匙",
        "Bearer cl\udce9-of-32-letters",
        "Bearer cl?-of-32-letters",
        "Bearer \ud800",
    ],
)
def test_any_other_token_is_kept_out(authorization: str) -> None:
    with refused(401, says="API key"):
        guard(key=KEY).check("GET", "/v1/models", {**LOCAL, "Authorization": authorization})


def test_a_byte_that_is_no_utf8_stands_for_no_letter_of_the_key() -> None:
    with refused(401, says="API key"):
        guard(key="what?").check("GET", "/v1/models", {**LOCAL, "Authorization": "Bearer what\udcff"})


def test_a_missing_token_is_kept_out_of_everything_but_the_health_check() -> None:
    guard(key=KEY).check("GET", "/healthz", LOCAL)
    for method, path in [("GET", "/metrics"), ("POST", CHAT), ("POST", "/api/reload"), ("GET", "/healthz/")]:
        with refused(401, says="API key"):
            guard(key=KEY).check(method, path, {**LOCAL, **JSON})


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def digest(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr("draftd.web.guard.hmac.compare_digest", digest)
    with refused(401, says="API key"):
        guard(key="key").check("GET", "/v1/models", {**LOCAL, "Authorization": "Bearer guess"})
    assert compared == [(b"guess", b"key")]


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"],
)
def test_json_is_taken(kind: str) -> None:
    guard().check("POST", CHAT, {**LOCAL, "Content-Type": kind})


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/messages"])
@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"],
)
def test_what_a_page_can_post_without_being_asked_is_not_taken(path: str, kind: str) -> None:
    with refused(415, says="application/json"):
        guard().check("POST", path, {**LOCAL, "Content-Type": kind})


def test_orders_and_reading_need_no_content_type() -> None:
    guard().check("POST", "/api/reload", LOCAL)
    guard().check("GET", "/v1/models", LOCAL)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "box.local", "localhost.evil.com"])
@pytest.mark.parametrize("key", ["", " \n"])
def test_an_open_address_without_a_key_is_refused_and_the_answer_says_how_to_set_one(
    host: str, key: str
) -> None:
    with pytest.raises(ConfigError, match="DRAFTD_API_KEY"):
        guard(host, key=key)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert guard(host).api_key == ""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("A.b:80", "a.b"),
        ("a.b", "a.b"),
        ("[::1]:80", "::1"),
        ("[FE80::1]", "fe80::1"),
        ("[::1", ""),
        ("[fe80::1%en0]:80", "fe80::1%en0"),
        ("", ""),
    ],
)
def test_a_host_header_is_read_without_its_port(header: str, name: str) -> None:
    assert host_name(header) == name


def test_without_allowed_origins_nothing_depends_on_the_origin() -> None:
    asked = LOCAL | {"Origin": "http://localhost:8080", "Access-Control-Request-Method": "GET"}
    assert not guard().is_preflight("OPTIONS", asked)
    assert guard().answer_headers("OPTIONS", asked) == {}
    allowed = guard(origins=("http://localhost:8080",))
    assert allowed.is_preflight("OPTIONS", asked)
    assert allowed.answer_headers("OPTIONS", asked)["Vary"].startswith("Origin")
