"""profile_files: all files are taken or none, and every fault is reported with its file, line and reason."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from draftd.errors import ConfigError, Problem
from draftd.profile_files import fingerprint, load_dir, parse, read_prompt
from draftd.profiles import ProfileSet
from draftd.settings import shipped_dir

MODEL = 'model = "org/target"\n'


class Folder:
    """Folders for profiles and prompts, filled as a user would."""

    def __init__(self, base: Path) -> None:
        self.profiles, self.own, self.other = base / "profiles", base / "prompts", base / "other"
        for folder in (self.profiles, self.own, self.other):
            folder.mkdir()

    def write(self, **texts: str) -> None:
        for stem, text in texts.items():
            (self.profiles / f"{stem}.toml").write_text(text, "utf-8")

    def load(self) -> ProfileSet:
        return load_dir(self.profiles, (self.own, self.other))

    def refusal(self) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return caught.value

    def problems(self) -> list[tuple[str, int | None, str]]:
        return [(problem.file.name, problem.line, problem.reason) for problem in self.refusal().problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --- what is loaded -----------------------------------------------------------------------------------------


def test_profiles_are_named_by_their_files_and_sorted_by_name(folder: Folder) -> None:
    folder.write(b=MODEL, a='name = "z"\n' + MODEL, c=MODEL)
    assert list(folder.load().profiles) == ["b", "c", "z"]


def test_a_path_is_taken_from_the_folder_of_the_profile(folder: Folder) -> None:
    folder.write(a='model = "./target"\ndraft_model = "../draft"\n')
    profile = folder.load().profiles["a"]
    assert profile.model == str(folder.profiles / "target")
    assert profile.draft_model == str(folder.profiles.parent / "draft")


@pytest.mark.parametrize("key", ["model", "draft_model", "adapter_path"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mlx-community/Qwen2.5-3B-Instruct-4bit", "mlx-community/Qwen2.5-3B-Instruct-4bit"),
        ("/models/qwen", "/models/qwen"),
        ("models/qwen", "models/qwen"),
        ("./qwen", "/srv/profiles/qwen"),
        ("../models/qwen", "/srv/models/qwen"),
        ("..", "/srv"),
        (".", "/srv/profiles"),
        ("~/qwen", "/home/somebody/qwen"),
    ],
)
def test_a_path_is_made_absolute_and_a_hub_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, key: str, written: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = (MODEL if key != "model" else "") + f'{key} = "{written}"\n'
    found = parse(Path("/srv/profiles/fast.toml"), text)
    assert getattr(found, key) == meant


def test_files_of_other_kinds_and_what_editors_leave_are_not_read(folder: Folder) -> None:
    folder.write(a=MODEL)
    (folder.profiles / "notes.txt").write_text("not a profile")
    (folder.profiles / "b.toml~").write_text("an old one")
    (folder.profiles / "._a.toml").write_bytes(b"\x00\xff")
    (folder.profiles / ".#a.toml").symlink_to("somebody@host.1234")
    assert list(folder.load().profiles) == ["a"]


PRESET = "qwen2.5-3b-speculative"


def test_the_shipped_presets_are_the_ones_that_were_promised() -> None:
    shipped = load_dir(shipped_dir("profiles"), (shipped_dir("prompts"),)).profiles
    presets = {name: profile for name, profile in shipped.items() if name.startswith(PRESET)}
    assert {profile.models for profile in presets.values()} == {
        (
            "mlx-community/Josiefied-Qwen2.5-3B-Instruct-abliterated-v1-4-bit",
            "mlx-community/Josiefied-Qwen2.5-0.5B-Instruct-abliterated-v1-4bit",
        )
    }
    assert {name: profile.num_draft_tokens for name, profile in presets.items()} == {
        f"{PRESET}-auto": "auto",
        f"{PRESET}-balanced": 5,
        f"{PRESET}-fast": 3,
        f"{PRESET}-max": 7,
    }


def test_of_the_shipped_profiles_only_presets_start_by_themselves() -> None:
    shipped = load_dir(shipped_dir("profiles"), (shipped_dir("prompts"),)).profiles
    assert {name: profile.all_drafters for name, profile in shipped.items() if PRESET not in name} == {
        "gemma-3-12b": ("lookup",),
        "qwen2.5-coder-7b": ("lookup", "model"),
        "qwen3.5-9b": ("lookup",),
    }
    assert [name for name, profile in shipped.items() if profile.autostart] == [
        f"{PRESET}-{name}" for name in ("balanced", "fast", "max")
    ]


@pytest.mark.parametrize("file", sorted(shipped_dir("profiles").glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_profile_says_what_it_takes(file: Path) -> None:
    comments = " ".join(line for line in file.read_text("utf-8").splitlines() if line.startswith("#"))
    assert re.search(r"To download: [\d.]+ GB", comments)
    assert re.search(r"In memory: [\d.]+ GB,.* [\d.]+ GB for every 1,000 tokens of context", comments)
    assert file.stem.startswith(PRESET) or re.search(r"Licence of (the model|both models): ", comments)


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "model: this key is required"),
        ("# nothing\nport = 1\n", None, "model: this key is required"),
        (MODEL + "\nmodle = 1\n", 3, "modle: unknown key"),
        (MODEL + "port = 70000\n", 2, "port: it must be at most 65535 (it is 70000)"),
        (MODEL + 'port = "x"\n', 2, "port: a whole number is expected (it is 'x')"),
        (MODEL + 'aliases = [\n  "fine",\n  "../x",\n]\n', 2, "aliases: an alias begins with a letter"),
        (MODEL + 'name = "a%2fb"\n', 2, "name: a name begins with a letter"),
        (MODEL + "num_draft_tokens = 3\n", 2, "num_draft_tokens needs a draft_model"),
        (MODEL + "\n[limits]\nqueue = 1\nmemory = 0\n", 5, "limits.memory: it must be more than 0"),
        (
            MODEL + "restart.max_delay = 1e12\n",
            2,
            "restart.max_delay: it must be at most 10000000 (it is 1000000000000.0)",
        ),
        (
            MODEL + "limits.memory = -1\n",
            2,
            "limits.memory: a size is a whole number of bytes, or a string like '8GB', and not negative",
        ),
        (MODEL + "[server]\n\nlog-level = 'DEBUG'\n", 4, "server: log_level DEBUG writes every prompt"),
        (MODEL + "\ncommand = ['serve']\n", 3, "command must contain {port}"),
        (MODEL + "[defaults]\ntemperature = 9\n", 3, "defaults.temperature: it must be at most"),
        (MODEL + "defaults = { temperature = 9 }\n", 2, "defaults.temperature: it must be at most"),
        (MODEL + "server = 5\n", 2, "server: a table is expected (it is 5)"),
        (MODEL + "[restart]\nwindow = 1\n[foo.bar]\n", 4, "foo: unknown key"),
        ('model = "~no-such-user-here/x"', 1, "model: there is no user ~no-such-user-here"),
        (MODEL + "port = \n", 2, "not valid TOML: there is no value"),
        (MODEL + "a = '''\nnever closed\n", 3, "not valid TOML: a string is not closed"),
        (MODEL + MODEL, 2, "not valid TOML: this key is here for the second time"),
        (
            MODEL + 'command = ["serve", "{port}", "a\\u0000b"]\n',
            2,
            "command: item 3 has a NUL (\\u0000) at its",
        ),
        ('model = "a\\u0000b"', 1, "model: it has a NUL"),
        (
            MODEL + "[server]\nchat_template = 'x'\n[distributed.env]\nA = \"\\u0000\"\n",
            5,
            "distributed.env.A: it has",
        ),
        (MODEL + ".".join(["a"] * 20_000) + " = 1", 2, "not valid TOML: a key has more than 32 parts"),
        ("#" * (128 << 10) + "\n", None, "cannot be read: it has more than 128 KiB"),
        ("a = " + "[" * 5000, None, "not valid TOML: nested too deeply"),
        ("a = " + "9" * 5000, None, "not valid TOML: a number has too many digits"),
    ],
)
def test_a_fault_is_told_with_its_file_its_line_and_the_reason(
    folder: Folder, text: str, line: int | None, reason: str
) -> None:
    folder.write(good=MODEL, bad=text)
    ((name, found, said),) = folder.problems()
    assert (name, found) == ("bad.toml", line)
    assert said.startswith(reason)


def test_all_faults_of_all_files_are_told_at_once(folder: Folder) -> None:
    folder.write(a="port = 0\nmodle = 1\n", b="= 1\n", c=MODEL, d=MODEL + 'system_prompt = "none"\n')
    assert [(name, line) for name, line, _ in folder.problems()] == [
        ("a.toml", None),
        ("a.toml", 1),
        ("a.toml", 2),
        ("b.toml", 1),
        ("d.toml", 2),
    ]


def test_the_faults_of_a_file_are_in_the_order_of_its_lines(folder: Folder) -> None:
    folder.write(
        b='odd = 1\nport = 0\nmodel = 5\nsystem_prompt = "none"\n[limits]\nstrange = 1\nconcurrency = "x"\n',
        a='draft_modle = "x"\nmodel = "~nobody-here/x"\naliases = 3\n',
    )
    assert [(name, line) for name, line, _ in folder.problems()] == [
        ("a.toml", 1), ("a.toml", 2), ("a.toml", 3),
        ("b.toml", 1), ("b.toml", 2), ("b.toml", 3), ("b.toml", 6), ("b.toml", 7),
    ]  # fmt: skip


@pytest.mark.fault(221)
def test_of_many_faults_the_first_are_told_and_the_rest_counted(folder: Folder) -> None:
    folder.write(a=MODEL + "".join(f"key{number} = 1\n" for number in range(2_000)))
    found = folder.problems()
    assert [line for _, line, _ in found] == [None, *range(2, 52)]
    assert found[0][2] == "and 1,950 faults more"


def test_a_stop_text_may_hold_a_nul(folder: Folder) -> None:
    folder.write(a=MODEL + '[defaults]\nstop = "\\u0000"\n')
    assert folder.load().profiles["a"].defaults.stop == "\0"


@pytest.mark.fault(221)
def test_a_file_without_end_takes_no_memory(folder: Folder) -> None:
    folder.write(a=MODEL + 'system_prompt = "endless"\n', b=MODEL)
    for endless in (folder.profiles / "b.toml", folder.own / "endless.txt"):
        with endless.open("a") as file:
            file.truncate(1 << 42)  # 4 TiB, of which nothing is on the disk
    assert [(name, reason.split(": ", 1)[1]) for name, _, reason in folder.problems()] == [
        ("a.toml", f"{folder.own / 'endless.txt'} cannot be read: it has more than 16 MiB"),
        ("b.toml", "it has more than 128 KiB"),
    ]


def test_a_home_of_nobody_hides_no_other_fault(folder: Folder) -> None:
    folder.write(a='model = "~no-such-user-here/x"\nport = 0\n')
    assert [(name, line) for name, line, _ in folder.problems()] == [("a.toml", 1), ("a.toml", 2)]


def test_the_message_reads_as_file_line_and_reason(folder: Folder) -> None:
    folder.write(a=MODEL + "modle = 1\n")
    assert str(folder.refusal()) == (
        f"the profiles in {folder.profiles} are not valid\n"
        f"  {folder.profiles}/a.toml:2: modle: unknown key; did you mean model?"
    )
    assert str(Problem(Path("a.toml"), None, "why")) == "a.toml: why"


def test_a_file_that_is_not_text_is_told_with_the_line_of_its_first_bad_byte(folder: Folder) -> None:
    (folder.profiles / "a.toml").write_bytes(MODEL.encode() + b"# ok\n# \xff\n# \xff\n")
    assert folder.problems() == [("a.toml", 3, "the file is not UTF-8 text")]


def test_a_file_that_cannot_be_read_is_told(folder: Folder) -> None:
    folder.write(good=MODEL)
    (folder.profiles / "a.toml").mkdir()
    (folder.profiles / "b.toml").symlink_to("nowhere.toml")
    assert folder.problems() == [
        ("a.toml", None, "cannot be read: Is a directory"),
        ("b.toml", None, "cannot be read: No such file or directory"),
    ]


def test_an_empty_and_a_missing_folder_are_told_apart(folder: Folder, tmp_path: Path) -> None:
    assert "there is no profile (*.toml) in" in str(folder.refusal())
    with pytest.raises(ConfigError, match="does not exist; 'draftd up --demo' needs none"):
        load_dir(tmp_path / "missing", ())


@pytest.mark.fault(73)
def test_what_is_no_folder_is_told_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one.toml", "file"):
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("/nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    told = {
        "one.toml": "is a single profile; give its folder, .*, and the name 'one'",
        "file": "is not a folder",
        "link": r"does not exist \(it is a link to /nowhere\)",
        "loop": "cannot be read: Too many levels of symbolic links",
    }
    for name, words in told.items():
        with pytest.raises(ConfigError, match=words):
            load_dir(tmp_path / name, ())
    # What macOS answers where the user has not given leave: the folder is there, and cannot be looked into.
    monkeypatch.setattr(
        os, "listdir", Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted"))
    )
    with pytest.raises(ConfigError, match="cannot be read: Operation not permitted"):
        load_dir(tmp_path, ())


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('draft_modle = "x"\n', "draft_modle: unknown key; did you mean draft_model?"),
        ("temperature = 1.0\n", "temperature: unknown key; temperature belongs in [defaults]"),
        ("max_token = 1\n", "max_token: unknown key; did you mean max_tokens in [defaults]?"),
        ("[defaults]\ntemprature = 1.0\n", "defaults.temprature: unknown key; did you mean temperature?"),
        (
            "[server]\nprompt-cache-sizes = 1\n",
            "server.prompt-cache-sizes: unknown key; did you mean prompt_cache_size?",
        ),
        (
            '[limits]\ndraft_model = "x"\n',
            "limits.draft_model: unknown key; draft_model belongs in the top of the file, above every table",
        ),
        ("zzz = 1\n", "zzz: unknown key"),
    ],
)
def test_a_near_miss_gets_a_hint(folder: Folder, text: str, hint: str) -> None:
    folder.write(a=MODEL + text)
    assert [reason for _, _, reason in folder.problems()] == [hint]


@pytest.mark.fault(73)
def test_what_is_no_file_is_told_by_what_it_is_and_nothing_waits_for_it(folder: Folder) -> None:
    folder.write(good=MODEL + 'system_prompt = "terse"\n')
    os.mkfifo(folder.profiles / "a.toml")
    (folder.profiles / "b.toml").symlink_to("/dev/zero")
    prompt = folder.own / "terse.txt"
    os.mkfifo(prompt)
    assert folder.problems() == [
        ("a.toml", None, "cannot be read: it is a named pipe, not a file"),
        ("b.toml", None, "cannot be read: it is a device, not a file"),
        (
            "good.toml",
            2,
            f"system_prompt: {prompt} cannot be read: it is a named pipe, not a file",
        ),
    ]


def test_a_byte_order_mark_is_part_of_no_key_and_of_no_prompt(folder: Folder) -> None:
    mark = b"\xef\xbb\xbf"
    (folder.profiles / "a.toml").write_bytes(mark + MODEL.encode() + b'system_prompt = "terse"\r\n')
    (folder.own / "terse.txt").write_bytes(mark + "Zoë.\r\nTerse.\r\n".encode())
    assert folder.load().prompts == {"terse": "Zoë.\nTerse."}
    (folder.profiles / "a.toml").write_bytes(mark + b"# \xc3\xa9\nmodel = 5\n# \xff\n")
    assert folder.problems() == [("a.toml", 3, "the file is not UTF-8 text")]


def test_the_home_of_the_user_is_put_into_a_command(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    command = '["~/bin/server", "--port", "{port}", "~", "--x=~/y", "a~b", "~no-such-user-here/x"]'
    folder.write(a=f"{MODEL}command = {command}\n")
    assert folder.load().profiles["a"].command == (
        "/home/somebody/bin/server",
        "--port",
        "{port}",
        "/home/somebody",
        "--x=~/y",
        "a~b",
        "~no-such-user-here/x",
    )


def test_parse_names_the_file_it_was_given() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Path("x.toml"), "model = 5")
    assert caught.value.problems == (Problem(Path("x.toml"), 1, "model: a string is expected (it is 5)"),)


# --- clashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "line", "reason"),
    [
        ("", 'name = "a"\n', 2, "name: a is taken by a.toml"),
        ("", 'port = 1\naliases = ["x", "a"]\n', 3, "aliases: a is taken by a.toml"),
        ('aliases = ["x"]\n', '\naliases = ["x"]\n', 3, "aliases: x is taken by a.toml"),
        ('aliases = ["b"]\n', "", None, "name: b is taken by a.toml"),
        ("port = 9000\n", "port = 9000\n", 2, "port: 9000 is taken by a.toml"),
        ("", 'aliases = ["b"]\n', 2, "aliases: b is taken by b.toml"),
    ],
)
def test_a_name_an_alias_or_a_port_stands_in_one_file_only(
    folder: Folder, first: str, second: str, line: int | None, reason: str
) -> None:
    folder.write(a=MODEL + first, b=MODEL + second)
    assert folder.problems() == [("b.toml", line, reason)]


def test_names_that_differ_in_case_only_would_have_one_log_on_a_mac(folder: Folder) -> None:
    folder.write(a=MODEL, b='\nname = "A"\n' + MODEL)
    reason = "name: A differs from a in a.toml only in case; so would their logs"
    assert folder.problems() == [("b.toml", 2, reason)]


def test_a_name_does_not_clash_with_a_port_nor_a_file_with_itself(folder: Folder) -> None:
    folder.write(a=MODEL + 'port = 9000\naliases = ["x", "x"]\n', b=MODEL + 'name = "9000"\nport = 9001\n')
    assert list(folder.load().profiles) == ["9000", "a"]


# --- prompts ------------------------------------------------------------------------------------------------


def test_a_prompt_is_taken_from_the_first_folder_that_has_it(folder: Folder) -> None:
    (folder.own / "terse.txt").write_text("Ours.\n\nTerse.\n\n")
    (folder.other / "terse.txt").write_text("Theirs.")
    (folder.other / "kind.txt").write_text("Kind — and Zoë.", "utf-8")
    folder.write(a=MODEL + 'system_prompt = "terse"\n', b=MODEL + 'system_prompt = "kind"\n', c=MODEL)
    loaded = folder.load()
    assert loaded.prompts == {"terse": "Ours.\n\nTerse.", "kind": "Kind — and Zoë."}
    assert loaded.prompt_of(loaded.profiles["b"]) == "Kind — and Zoë."
    assert loaded.prompt_of(loaded.profiles["c"]) == ""


def test_a_missing_prompt_is_told_where_it_was_asked_for_and_looked_for(folder: Folder) -> None:
    asks = MODEL + '\nsystem_prompt = "terse"\n'
    folder.write(a=asks, b=asks)
    reason = f"system_prompt: there is no terse.txt in {folder.own}, {folder.other}"
    assert folder.problems() == [("a.toml", 3, reason), ("b.toml", 3, reason)]


@pytest.mark.fault(41)
def test_a_prompt_that_is_a_link_is_refused_and_the_next_folder_not_asked(
    folder: Folder, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    (folder.own / "terse.txt").symlink_to(secret)
    (folder.other / "terse.txt").write_text("fine")
    folder.write(a=MODEL + 'system_prompt = "terse"\n')
    ((name, line, reason),) = folder.problems()
    assert (name, line) == ("a.toml", 2)
    assert "terse.txt is a symbolic link" in reason
    assert "canary" not in reason


def test_a_prompt_may_be_a_link_within_its_folder(folder: Folder) -> None:
    """As in a folder that Kubernetes fills."""
    (folder.own / "..1").mkdir()
    (folder.own / "..1" / "terse.txt").write_text("Terse.")
    (folder.own / "..data").symlink_to("..1")
    (folder.own / "terse.txt").symlink_to("..data/terse.txt")
    folder.write(a=MODEL + 'system_prompt = "terse"\n')
    assert folder.load().prompts == {"terse": "Terse."}


def test_a_prompt_that_is_not_text_is_refused(folder: Folder) -> None:
    (folder.own / "terse.txt").write_bytes(b"\xff")
    folder.write(a=MODEL + 'system_prompt = "terse"\n')
    assert [(name, line) for name, line, _ in folder.problems()] == [("a.toml", 2)]


def test_a_folder_of_the_name_of_a_prompt_is_no_prompt(folder: Folder) -> None:
    (folder.own / "terse.txt").mkdir()
    (folder.other / "terse.txt").write_text("Terse.")
    assert read_prompt("terse", (folder.own, folder.other)) == "Terse."
    with pytest.raises(ConfigError, match=r"there is no terse\.txt in"):
        read_prompt("terse", (folder.own,))


# --- changes ------------------------------------------------------------------------------------------------


def _edit(folder: Path) -> None:
    (folder / "a.toml").write_text(MODEL + "# edited\n")


def _replace(folder: Path) -> None:
    (folder / "new").write_text(MODEL)  # of the same size
    (folder / "new").replace(folder / "a.toml")


def _swap(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("new"), symlinks=True)  # with the times of the old files
    folder.rename(folder.with_name("old"))
    folder.with_name("new").rename(folder)


def _set_link_anew(folder: Path) -> None:
    (folder / "..2").mkdir()
    (folder / "..2" / "linked.toml").write_text(MODEL)
    (folder / "..new").symlink_to("..2")
    (folder / "..new").replace(folder / "..data")


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": _edit,
    "replaced": _replace,
    "added": lambda folder: (folder / "b.toml").write_text(MODEL),
    "removed": lambda folder: (folder / "a.toml").unlink(),
    "the folder swapped": _swap,
    "the folder removed": shutil.rmtree,
    "a link set anew": _set_link_anew,
    "edited behind a link": lambda folder: (folder.parent / "elsewhere.toml").write_text(MODEL + "#"),
    "a prompt edited": lambda folder: (folder / "x.txt").write_text("other"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_every_kind_of_change_is_seen(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "profiles"
    (folder / "..1").mkdir(parents=True)
    for path in (
        folder / "a.toml",
        folder / "x.txt",
        folder / "..1" / "linked.toml",
        tmp_path / "elsewhere.toml",
    ):
        path.write_text(MODEL)
    (folder / "..data").symlink_to("..1")
    (folder / "linked.toml").symlink_to("..data/linked.toml")
    (folder / "behind.toml").symlink_to(tmp_path / "elsewhere.toml")
    (folder / "nowhere.toml").symlink_to("nowhere")
    before = fingerprint([folder, tmp_path / "missing"])
    assert fingerprint([folder, tmp_path / "missing"]) == before
    CHANGES[how](folder)
    assert fingerprint([folder, tmp_path / "missing"]) != before


def test_what_is_no_profile_and_no_prompt_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(MODEL)
    before = fingerprint([tmp_path])
    for name in (".a.toml.swp", "notes.md", ".#a.toml"):
        (tmp_path / name).write_text("x")
    assert fingerprint([tmp_path]) == before


@pytest.mark.fault(173)
def test_a_disk_that_does_not_answer_is_no_error_of_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text(MODEL)
    assert fingerprint([tmp_path])
    monkeypatch.setattr(Path, "glob", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    assert fingerprint([tmp_path]) == ()
