"""The commands around serving, in this process: what they print, ask and write."""

from __future__ import annotations

import json
import os
import plistlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from draftd.cli import app
from draftd.commands import shared
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.instance import AGENT, Instance
from draftd.settings import Settings, load_settings
from draftd.settings_file import config_dir
from tests.ops.test_launchctl import Launchctl, launchctl

__all__ = ["launchctl"]  # a fixture

PRESET = "qwen2.5-3b-speculative"


def run(*words: str, typed: str = "", **environ: str) -> Result:
    return CliRunner().invoke(app, words, input=typed, env=environ, prog_name="draftd")


def said(*words: str, typed: str = "") -> str:
    result = run(*words, typed=typed)
    assert result.exception is None, result.exception
    return result.stdout


def refused(kind: type[DraftdError], *words: str) -> str:
    result = run(*words)
    assert isinstance(result.exception, kind)
    return str(result.exception)


@pytest.mark.parametrize("verb", ["opencode", "clients", "launch", "prompts", "init", "pull"])
def test_each_verb_has_help_with_an_example(verb: str) -> None:
    assert f" {verb} " in said("--help")
    assert f"Example: draftd {verb}" in said(verb, "--help")


@pytest.mark.parametrize("verb", ["print", "install", "uninstall", "status", "logs"])
def test_each_launchd_verb_has_help_with_an_example(verb: str) -> None:
    assert f" {verb} " in said("launchd", "--help")
    assert f"Example: draftd launchd {verb}" in said("launchd", verb, "--help")


def test_draftd_alone_says_that_nothing_runs_and_what_to_type() -> None:
    shown = said()
    assert "no daemon is running" in shown
    assert [line.split("   ")[0].strip() for line in shown.splitlines() if line.startswith("  draftd")] == [
        "draftd up --demo",
        "draftd up balanced",
        "draftd doctor",
        "draftd --help",
    ]


def completed(words: str, **environ: str) -> list[str]:
    environ |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    return run(_DRAFTD_COMPLETE="complete_bash", **environ).stdout.split()


@pytest.mark.parametrize("verb", ["up", "restart", "logs", "pull", "launchd install"])
def test_the_shell_completes_names_of_profiles_and_of_presets(verb: str) -> None:
    assert completed(f"draftd {verb} qwen2.5-3b") == [
        f"{PRESET}-{preset}" for preset in ("auto", "balanced", "fast", "max")
    ]
    assert completed(f"draftd {verb} fa") == ["fast"]
    assert completed(f"draftd {verb} fa", DRAFTD_PROFILES="/none") == []


# --- prompts, init, pull ------------------------------------------------------------------------------------


def test_prompts_are_listed_with_their_users_and_shown(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'model = "m"\nsystem_prompt = "expert"\nsystem_prompt_mode = "prepend"\n'
    )
    listed = said("prompts", "--profiles", str(tmp_path))
    assert "a (prepend)" in listed
    assert "anti-refusal" in listed
    assert said("prompts", "expert").startswith("You are talking with")
    assert said("prompts", "empty.txt") == "\n"
    assert "there are: anti-refusal, empty, expert" in refused(ConfigError, "prompts", "nope")


def test_init_makes_profiles_that_are_used_from_then_on() -> None:
    assert f"{PRESET}-fast.toml: copied" in said("init")
    assert load_settings().profiles_dir() == config_dir() / "profiles"
    file = config_dir() / "profiles" / f"{PRESET}-fast.toml"
    file.write_text(file.read_text() + "autostart = false\n")
    assert "kept: you edited it" in said("init")
    assert "7 profiles" in said("check")


def test_init_writes_a_settings_file_that_says_every_setting_and_changes_none() -> None:
    assert "draftd.toml: written" in said("init")
    file = config_dir() / "draftd.toml"
    text = file.read_text()
    assert tomllib.loads(text) == {}
    meant = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if re.match(r"# \w+ = (?!\"\"  # not set)", line)
    ]
    assert Settings(**tomllib.loads("\n".join(meant))) == Settings()
    assert all(f"# {name} = " in text for name in Settings.model_fields)
    file.write_text("port = 8123\n")
    assert "draftd.toml: exists already" in said("init")
    assert load_settings().port == 8123


def test_pull_takes_the_models_of_the_named_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pull(name: str) -> str:
        asked.append(name)
        return f"/cache/{name}"

    monkeypatch.setattr("draftd.commands.setup.download", pull)
    shown = said("pull", "fast")
    assert [name.split("-Qwen2.5-")[1][:4] for name in asked] == ["3B-I", "0.5B"]
    assert f"is in /cache/{asked[0]}" in shown


def test_pull_without_a_name_takes_what_starts_by_itself_and_says_what_it_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("draftd.commands.setup.download", lambda name: f"/cache/{name}")
    shown = said("pull")
    assert shown.count("  is in /cache/mlx-community/Josiefied-Qwen2.5-") == shown.count("  is in ") == 2
    assert "left out, as they start only when asked: gemma-3-12b, qwen2.5-coder-7b, qwen3.5-9b;" in shown
    assert "left out" not in said("pull", "gemma")


def test_pull_needs_nothing_for_folders(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('model = "."\n')
    assert "nothing to download" in said("pull", "--profiles", str(tmp_path))


# --- opencode and clients without a daemon ------------------------------------------------------------------


def test_opencode_promises_what_the_profiles_and_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTD_PORT", "8090")
    monkeypatch.setenv("DRAFTD_HOST", "0.0.0.0")
    monkeypatch.setenv("DRAFTD_API_KEY", "secret-word")
    shown = said("opencode")
    config = json.loads(shown)
    assert config["model"] == f"speculative/{PRESET}-balanced"
    assert config["small_model"] == f"speculative/{PRESET}-fast"
    assert config["provider"]["speculative"]["options"]["baseURL"] == "http://127.0.0.1:8090/v1"
    assert "secret-word" not in shown + said("clients")


def test_opencode_writes_after_a_diff_and_a_yes(tmp_path: Path) -> None:
    file = tmp_path / "opencode.jsonc"
    file.write_text('{\n  "theme": "dark" // mine\n}\n')
    no = run("opencode", "--write", "--file", str(file), typed="n\n")
    assert no.exit_code == 1
    assert '+  "model": "speculative/' in no.stdout
    assert file.read_text() == '{\n  "theme": "dark" // mine\n}\n'
    assert "the old one is" in said("opencode", "--write", "--file", str(file), typed="y\n")
    assert '"theme": "dark", // mine' in file.read_text()
    assert len(list(tmp_path.glob("opencode.jsonc.*.bak"))) == 1
    assert "nothing changed" in said("opencode", "--write", "--file", str(file))
    assert len(list(tmp_path.iterdir())) == 2


def test_clients_are_shown_together_or_one_by_one() -> None:
    everything = said("clients")
    for name in ("curl", "openai", "continue", "aider", "zed"):
        assert said("clients", name).strip() in everything
    assert "there are: curl, openai" in refused(ConfigError, "clients", "emacs")


# --- launchd ------------------------------------------------------------------------------------------------


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("os.getuid", lambda: 501)


def test_the_plist_is_printed_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTD_DRAIN_TIMEOUT", "300")
    job = plistlib.loads(said("launchd", "print", "fast").encode())
    assert job["ProgramArguments"][-3:] == ["up", "--plain", "fast"]
    assert job["ProgramArguments"][0].startswith(str(Path(sys.executable).parent))
    assert job["ExitTimeOut"] > 310
    assert job["EnvironmentVariables"]["DRAFTD_DRAIN_TIMEOUT"] == "300"


@pytest.mark.parametrize("verb", ["install", "uninstall", "status", "logs"])
def test_elsewhere_than_on_a_mac_it_is_told_what_to_do(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a Mac has a launchctl
    monkeypatch.setattr("platform.system", lambda: "Linux")
    text = refused(DraftdError, "launchd", verb)
    assert "launchd is a part of macOS, and this is Linux: run 'draftd up --plain'" in text


def test_a_dry_run_does_nothing(mac: None, launchctl: Launchctl) -> None:
    shown = said("launchd", "install", "--dry-run") + said("launchd", "uninstall", "--dry-run")
    for domain in ("gui", "user"):
        assert shown.count(f"launchctl bootout {domain}/501/dev.draftd") == 2
    assert launchctl.calls == ["print gui/501"]  # where it would go
    assert not (Path.home() / "Library").exists()


def test_an_agent_comes_and_goes(mac: None, launchctl: Launchctl) -> None:
    launchctl.answers("bootout 113", "bootout 113")
    assert "is installed and runs" in said("launchd", "install", "fast")
    plist = Path.home() / "Library" / "LaunchAgents" / "dev.draftd.plist"
    assert plistlib.loads(plist.read_bytes())["ProgramArguments"][-1] == "fast"
    assert "pid: 4711" in said("launchd", "status")
    assert "there is no log" in refused(DraftdError, "launchd", "logs")
    (Path.home() / "Library" / "Logs" / "draftd" / "draftd.log").write_text("one\ntwo\n")
    assert said("launchd", "logs", "-n", "1") == "two\n"
    assert said("launchd", "uninstall") == "the agent is gone\n"
    assert not plist.exists()
    launchctl.answers("bootout 113", "bootout 113", "print 113", "print 113")
    assert said("launchd", "uninstall") == "there was no agent\n"
    assert "no agent of draftd" in refused(NotRunningError, "launchd", "status")


@pytest.mark.fault(111)
def test_without_a_screen_the_agent_is_of_the_background_and_it_is_said_when_it_comes_back(
    mac: None, launchctl: Launchctl
) -> None:
    launchctl.answers("print 125", "bootout 125", "bootout 113")
    assert "nobody is logged in at this Mac's screen" in said("launchd", "install", "fast")
    plist = Path.home() / "Library" / "LaunchAgents" / "dev.draftd.plist"
    assert plistlib.loads(plist.read_bytes())["LimitLoadToSessionType"] == "Background"
    assert f"bootstrap user/501 {plist}" in launchctl.calls


def test_an_install_names_the_folders_that_macos_keeps_from_it(mac: None, launchctl: Launchctl) -> None:
    assert "macOS keeps these" not in said("launchd", "install")
    profiles = Path.home() / "Documents" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "a.toml").write_text('model = "~/Desktop/model"\n')
    shown = run("launchd", "install", DRAFTD_PROFILES=str(profiles)).stdout
    assert (
        f"macOS keeps these from programs in the background: {profiles}, {Path.home()}/Desktop/model."
        in shown
    )


def test_another_shell_finds_the_daemon_of_the_agent(
    mac: None, launchctl: Launchctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that has other folders, for instance by XDG_STATE_HOME."""
    said("launchd", "install")
    folder = load_settings().state_dir
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert load_settings().state_dir != folder
    assert shared.where_it_runs(load_settings()) == folder
    assert shared.where_it_runs(load_settings(state_dir=tmp_path)) == tmp_path
    with Instance(load_settings().state_dir) as running:
        running.announce("http://127.0.0.1:1", "1.2")
        assert shared.where_it_runs(load_settings()) == load_settings().state_dir


@pytest.mark.fault(113)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("doctor",), "the daemon (pid {pid}) does not answer at http://127.0.0.1:1"),
        (("prometheus",), "127.0.0.1:1"),
        (("bench", "--demo"), "a daemon runs (pid {pid})"),
    ],
)
def test_what_looks_for_the_daemon_finds_that_of_the_agent_from_any_shell(
    mac: None,
    launchctl: Launchctl,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    says: str,
) -> None:
    def stop(*_: object) -> None:
        raise DraftdError("enough")

    said("launchd", "install")
    with Instance(load_settings().state_dir) as running:
        running.announce("http://127.0.0.1:1", "1.2")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        monkeypatch.setenv("DRAFTD_PROFILES", str(tmp_path))  # none, so that no model is looked for
        monkeypatch.setattr("draftd.commands.bench._measured", stop)
        assert says.format(pid=os.getpid()) in " ".join(run(*words).output.split())


def test_a_folder_that_is_not_to_be_trusted_is_left_to_the_command_to_tell(
    mac: None, launchctl: Launchctl
) -> None:
    said("launchd", "install")
    folder = load_settings().state_dir
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert shared.where_it_runs(load_settings()) == folder
    assert "others can write" in refused(ConfigError, "status")


def test_an_agent_that_could_never_start_is_refused(mac: None, launchctl: Launchctl) -> None:
    assert "fits no profile" in refused(ConfigError, "launchd", "install", "nope")
    with Instance(load_settings().state_dir) as running:
        running.announce("http://127.0.0.1:1", "1.2")
        assert "started by hand" in refused(DraftdError, "launchd", "install")
    assert set(launchctl.calls) == {"print gui/501"}


def test_the_agent_itself_is_no_hindrance(
    mac: None, launchctl: Launchctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPC_SERVICE_NAME", AGENT)  # as launchd does
    with Instance(load_settings().state_dir) as running:
        running.announce("http://127.0.0.1:1", "1.2")
        assert "is installed and runs" in said("launchd", "install")
        monkeypatch.delenv("XPC_SERVICE_NAME")
        text = refused(DraftdError, "up", "--plain")
        assert (
            "launchd started it; 'draftd down' stops it for now, 'draftd launchd uninstall' for good" in text
        )
