"""settings: which source wins, which source is named for a refused value, and where files are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from draftd.errors import ConfigError
from draftd.settings import Settings, load_settings, shipped_dir
from draftd.settings_file import config_dir, settings_file

SECRET = "canary-key-7f3a"


def write_file(text: str) -> Path:
    """The user's settings file."""
    path = config_dir() / "draftd.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refusal(**options: Any) -> str:
    """The one problem of the settings, as it is shown."""
    with pytest.raises(ConfigError) as caught:
        load_settings(**options)
    (problem,) = caught.value.problems
    assert str(problem) in str(caught.value)
    return str(problem)


# --- sources ------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_ones_we_promise(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.base_port) == ("127.0.0.1", 8080, 8000)
    assert settings.default_profile == "qwen2.5-3b-speculative-balanced"
    assert (settings.max_loads, settings.stop_grace, settings.drain_timeout) == (1, 10, 30)
    assert settings.max_body_bytes == 32 * 2**20
    assert (settings.api_key, settings.allowed_hosts, settings.allowed_origins) == (None, (), ())
    assert (settings.log_level, settings.log_format) == ("info", "auto")
    assert tmp_path in settings.state_dir.parents


@pytest.mark.parametrize(
    ("key", "in_file", "in_variable", "as_option", "meant"),
    [
        ("host", '"h1"', "h2", "h3", ["127.0.0.1", "h1", "h2", "h3"]),
        ("port", "9001", "9002", 9003, [8080, 9001, 9002, 9003]),
        ("base_port", "7001", "7002", 7003, [8000, 7001, 7002, 7003]),
        ("profiles", '"/p1"', "/p2", Path("/p3"), [None, Path("/p1"), Path("/p2"), Path("/p3")]),
        ("stop_grace", "1.5", "2.5", 3.5, [10.0, 1.5, 2.5, 3.5]),
        ("log_level", '"debug"', "warning", "error", ["info", "debug", "warning", "error"]),
        ("allowed_hosts", '["a", "b"]', "c,d", ("e",), [(), ("a", "b"), ("c", "d"), ("e",)]),
    ],
)
def test_options_win_over_variables_over_the_file_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    in_file: str,
    in_variable: str,
    as_option: Any,
    meant: list[Any],
) -> None:
    default, from_file, from_variable, from_option = meant
    assert getattr(load_settings(**{key: None}), key) == default
    write_file(f"{key} = {in_file}\n")
    assert getattr(load_settings(), key) == from_file
    monkeypatch.setenv(f"DRAFTD_{key.upper()}", in_variable)
    assert getattr(load_settings(**{key: None}), key) == from_variable
    assert getattr(load_settings(**{key: as_option}), key) == from_option


def test_the_bound_of_stored_prompts_may_stand_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    store = load_settings().prompt_store()
    assert store is not None
    assert (store.max_bytes, store.seconds) == (5 * 10**9, 3.0)  # of the ten until SIGKILL
    assert Path(store.folder) == load_settings().state_dir / "prompt-caches"
    write_file('port = 9001\n[cache]\ndisk = "2GB"\n')
    assert (load_settings().cache_disk, load_settings().port) == (2 * 10**9, 9001)
    monkeypatch.setenv("DRAFTD_CACHE_DISK", "0")
    assert load_settings().prompt_store() is None


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('disk = "much"', "cache.disk"),
        (
            'disk = "-1"',
            "cache.disk: a size is a whole number of bytes, or a string like '8GB', and not negative",
        ),
        ("disk = true", "cache.disk: a number is expected (it is true)"),
        ("dish = 1", "cache.dish: unknown key; did you mean cache.disk?"),
    ],
)
def test_a_fault_in_a_table_is_told_with_its_line(table: str, reason: str) -> None:
    path = write_file(f"port = 9001\n[cache]\n{table}\n")
    told = refusal()
    assert told.startswith(f"{path}:3: {reason}"), told


def test_texts_to_read_ahead_are_looked_for_beside_the_settings_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_file('[cache]\npreload = ["prompts/a.txt", "/b.txt"]\n').parent
    assert load_settings().cache_preload == (folder / "prompts/a.txt", Path("/b.txt"))
    monkeypatch.setenv("DRAFTD_CACHE_PRELOAD", "my prompt.txt, /b.txt")
    assert load_settings().cache_preload == (folder / "my prompt.txt", Path("/b.txt"))


def test_groups_stand_in_lists_of_the_file_or_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write_file('[groups]\ntogether = [["a", "b"], ["c"]]\napart = [["a", "d"]]\n')
    groups = load_settings().groups()
    assert (groups.together, groups.apart) == ((("a", "b"), ("c",)), (("a", "d"),))
    monkeypatch.setenv("DRAFTD_GROUPS_APART", "a, b; c,d")
    assert load_settings().groups().apart == (("a", "b"), ("c", "d"))
    monkeypatch.setenv("DRAFTD_GROUPS_APART", "a")
    assert refusal() == "DRAFTD_GROUPS_APART: groups_apart: a list needs 2 names or more (it is 'a')"
    monkeypatch.setenv("DRAFTD_GROUPS_APART", "a,a")
    assert "a name is in one list twice: a, a" in refusal()


@pytest.mark.parametrize(
    "written", ["one.lan,two.lan", "one.lan, two.lan", " one.lan  two.lan ", ",one.lan,,two.lan,"]
)
def test_a_list_in_a_variable_is_parted_by_commas_or_spaces(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("DRAFTD_ALLOWED_ORIGINS", written)
    assert load_settings().allowed_origins == ("one.lan", "two.lan")


def test_the_settings_file_may_be_named_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_file("port = 9001\n")
    named = tmp_path / "named.toml"
    named.write_text("port = 9002\n")
    monkeypatch.setenv("DRAFTD_CONFIG", str(named))
    assert settings_file() == named
    assert load_settings().port == 9002
    monkeypatch.setenv("DRAFTD_CONFIG", "")
    assert load_settings().port == 9001


def test_a_settings_file_that_was_named_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    monkeypatch.setenv("DRAFTD_CONFIG", str(missing))
    with pytest.raises(ConfigError, match="does not exist") as caught:
        load_settings()
    assert f"{missing} (from DRAFTD_CONFIG)" in str(caught.value)
    monkeypatch.setenv("DRAFTD_CONFIG", "~no-such-user-here/x.toml")
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings()


def test_a_value_that_another_source_overrides_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    write_file('port = "nonsense"\n')
    monkeypatch.setenv("DRAFTD_PORT", "9002")
    assert load_settings().port == 9002


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("port = 99999\n", 1, "port: it must be at most 65535 (it is 99999)"),
        ('host = ""\n', 1, "host: it must not be empty (it is '')"),
        ('# mine\n\nlog_level = "loud"\n', 3, "log_level: 'debug', 'info'"),
        ("host = '127.0.0.1'\nprot = 1\n", 2, "prot: unknown key"),
        ("base-port = 8000\n", 1, "base-port: unknown key"),
        ("[proxy]\nport = 1\n", 1, "proxy: unknown key"),
        ("profiles = 5\n", 1, "profiles: a path is expected (it is 5)"),
        ("allowed_hosts = 5\n", 1, "allowed_hosts: a list is expected (it is 5)"),
        ("stop_grace = 0\n", 1, "stop_grace: it must be more than 0 (it is 0)"),
        ("drain_timeout = inf\n", 1, "drain_timeout: a finite number is expected"),
        ("stop_grace = 1e20\n", 1, "stop_grace: it must be at most 10000000 (it is 1e+20)"),
        ("port = true\n", 1, "port: a number is expected (it is true)"),
        ('state_dir = ""\n', 1, "state_dir: it must not be empty; leave the key out for none"),
        ('api_key = ""\n', 1, "api_key: it must not be empty"),
        ("peers = 'x'\n", 1, "peers: in the file each is a [[peers]] table"),
        ("max_loads = 0\n", 1, "max_loads: it must be at least 1"),
        ("max_body_bytes = 10\n", 1, "max_body_bytes: it must be at least 1024"),
        ("host = 'x'\nport = \n", 2, "not valid TOML: there is no value"),
        ("port = " + "9" * 5000, None, "not valid TOML: a number has too many digits"),
        ("memory_budget = " + "9" * 400, 1, "memory_budget: 'auto' is expected, or it must be at most"),
        ("cache_disk = " + "9" * 400, 1, "cache_disk: it must be at most"),
        ("max_body_bytes = " + "9" * 400, 1, "max_body_bytes: it must be at most"),
        ("max_upload_bytes = " + "9" * 400, 1, "max_upload_bytes: it must be at most"),
        ('api_key = "  "', 1, "api_key: a key is a line of characters that can be printed"),
        ('api_key = "one\\ntwo"', 1, "api_key: a key is a line of characters"),
        (
            'allowed_hosts = ["http://mini.local"]',
            1,
            "allowed_hosts: http://mini.local is not the name of a host",
        ),
        (
            'allowed_hosts = ["a", "mini.local:8080"]',
            1,
            "allowed_hosts: mini.local:8080 is not the name of a host",
        ),
        ('allowed_hosts = ["*.local"]', 1, "allowed_hosts: *.local is not the name of a host alone"),
        ('allowed_hosts = ["mini.local/"]', 1, "allowed_hosts: mini.local/ is not the name of a host"),
        ("x" * 200_000, None, "it has more than 128 KiB"),
        ("x = " + "[" * 5000, None, "not valid TOML: nested too deeply"),
    ],
)
def test_a_value_of_the_file_is_refused_with_file_and_line(text: str, line: int | None, reason: str) -> None:
    path = write_file(text)
    place = f"{path}:{line}" if line else str(path)
    assert refusal().startswith(f"{place}: {reason}")


@pytest.mark.fault(54)
def test_a_folder_within_one_that_is_gone_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert refusal(state_dir=Path("state")).startswith(
        "--state-dir: state_dir: the folder that draftd was started in is gone"
    )


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DRAFTD_PORT", "abc", "port: a whole number is expected"),
        ("DRAFTD_PORT", "0", "port: it must be at least 1 (it is '0')"),
        (
            "DRAFTD_STOP_GRACE",
            "nan",
            "stop_grace: a finite number is expected (it is 'nan')",
        ),
        ("DRAFTD_LOG_FORMAT", "xml", "log_format: 'auto', 'json' or 'console' is expected (it is 'xml')"),
        ("DRAFTD_PEERS", "[" * 100_000, "peers: in the file each is a [[peers]] table, in a variable"),
        ("DRAFTD_API_KEY", " \t", "api_key: a key is a line of characters that can be printed"),
        ("DRAFTD_MEMORY_BUDGET", "1e9GB", "memory_budget: "),
        ("DRAFTD_PROFILES", "~no-such-user-here/x", "profiles: there is no user ~no-such-user-here"),
    ],
)
def test_a_value_of_a_variable_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    write_file("host = 'x'\n")
    monkeypatch.setenv(variable, value)
    assert refusal().startswith(f"{variable}: {reason}")
    monkeypatch.delenv(variable)
    monkeypatch.setenv(variable.lower(), value)
    assert refusal().startswith(f"{variable}: {reason}")


def test_a_key_and_names_of_hosts_are_taken_as_they_are_compared() -> None:
    write_file(
        'api_key = " ü key "\nallowed_hosts = ["mini.local", "[fe80::1%en0]", "10.0.0.1", "my_host"]\n'
    )
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "ü key"
    assert settings.allowed_hosts == ("mini.local", "fe80::1%en0", "10.0.0.1", "my_host")


def test_a_value_of_the_command_line_is_refused_with_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    write_file("base_port = 8000\n")
    monkeypatch.setenv("DRAFTD_BASE_PORT", "8000")
    assert refusal(base_port=0) == "--base-port: base_port: it must be at least 1 (it is 0)"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file("base_port = 9000\nmax_loads = 0\n")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"DRAFTD_{name.upper()}", "")
    assert refusal().startswith(f"{path}:2: max_loads: ")
    write_file("base_port = 9000\n")
    settings = load_settings()
    assert (settings.base_port, settings.api_key, settings.port) == (9000, None, 8080)
    monkeypatch.setenv("DRAFTD_CONFIG", "")
    assert load_settings().base_port == 9000


def test_a_near_miss_gets_a_hint() -> None:
    path = write_file("stop_grase = 1.0\n")
    assert refusal() == f"{path}:1: stop_grase: unknown key; did you mean stop_grace?"


def test_a_byte_order_mark_is_part_of_no_key() -> None:
    write_file("").write_bytes(b"\xef\xbb\xbfbase_port = 9000\r\n")
    assert load_settings().base_port == 9000


@pytest.mark.fault(73)
def test_a_pipe_in_the_place_of_the_file_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file("")
    path.unlink()
    os.mkfifo(path)
    assert refusal() == f"{path}: it is a named pipe, not a file"


def test_all_refused_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file("max_loads = 0\nprot = 1\n")
    monkeypatch.setenv("DRAFTD_HOST", "fine")
    monkeypatch.setenv("DRAFTD_STOP_GRACE", "0")
    with pytest.raises(ConfigError) as caught:
        load_settings(port=0)
    places = {str(problem).split(": ")[0] for problem in caught.value.problems}
    assert places == {"--port", "DRAFTD_STOP_GRACE", f"{path}:1", f"{path}:2"}


def test_a_file_that_cannot_be_read_is_told() -> None:
    path = write_file("")
    path.unlink()
    path.mkdir()
    assert refusal().startswith(f"{path}: ")
    path.rmdir()
    path.write_bytes(b"\xff")
    assert refusal().startswith(f"{path}: ")


# --- the secret ---------------------------------------------------------------------------------------------


def test_the_api_key_can_be_used_but_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTD_API_KEY", SECRET)
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == SECRET
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "text",
    [
        f'api_key = ["{SECRET}"]\n',
        f'[api_key]\nx = "{SECRET}"\n',
        f'api-key = "{SECRET}"\n',
        f'api_kye = "{SECRET}"\n',
        f'api_key = "{SECRET}\n',
        f'api_key = "{SECRET}"\napi_key = "{SECRET}"\n',
    ],
)
def test_no_error_repeats_the_api_key(text: str) -> None:
    write_file(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.problems
    assert SECRET not in str(caught.value)


def test_an_api_key_of_the_wrong_kind_is_refused_without_it() -> None:
    path = write_file("api_key = 73737373\n")
    assert refusal() == f"{path}:1: api_key: a string is expected"


# --- folders ------------------------------------------------------------------------------------------------


def test_profiles_are_looked_for_as_told_then_at_the_users_then_among_the_shipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings().profiles_dir() == shipped_dir("profiles")
    own = config_dir() / "profiles"
    own.mkdir(parents=True)
    assert load_settings().profiles_dir() == own
    monkeypatch.setenv("DRAFTD_PROFILES", str(tmp_path / "variable"))
    assert load_settings().profiles_dir() == tmp_path / "variable"
    assert load_settings(profiles=tmp_path / "option").profiles_dir() == tmp_path / "option"


def test_prompts_are_looked_for_beside_the_profiles_then_at_the_users_then_among_the_shipped(
    tmp_path: Path,
) -> None:
    settings = load_settings(profiles=tmp_path / "mine" / "profiles")
    assert settings.prompt_dirs() == (
        tmp_path / "mine" / "prompts",
        config_dir() / "prompts",
        shipped_dir("prompts"),
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/p", "home/p"),
        (".", "here"),
        ("..", ""),
        ("p", "here/p"),
        ("./p/../q", "here/q"),
    ],
)
def test_a_folder_is_made_absolute_so_that_its_neighbours_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str, meant: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    settings = load_settings(profiles=written, state_dir=written)
    assert settings.profiles == settings.state_dir == tmp_path / meant
    assert settings.prompt_dirs()[0] == (tmp_path / meant).parent / "prompts"


def test_a_link_to_a_folder_keeps_its_own_neighbours(tmp_path: Path) -> None:
    (tmp_path / "real" / "profiles").mkdir(parents=True)
    (tmp_path / "profiles").symlink_to(tmp_path / "real" / "profiles")
    assert load_settings(profiles=tmp_path / "profiles").prompt_dirs()[0] == tmp_path / "prompts"


def test_the_shipped_files_are_there() -> None:
    for kind, pattern in [("profiles", "*.toml"), ("prompts", "*.txt"), ("launchd", "*.plist")]:
        assert list(shipped_dir(kind).glob(pattern)), kind


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("box.local", "http://box.local:8080"),
    ],
)
def test_the_url_is_one_that_clients_on_this_machine_reach(host: str, url: str) -> None:
    assert load_settings(host=host).url == url
