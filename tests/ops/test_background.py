"""What a daemon in the background is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from draftd.errors import ConfigError
from draftd.ops import background


def test_the_command_is_absolute(tmp_path: Path) -> None:
    assert background.program(tmp_path / "python") == (str(tmp_path / "python"), "-m", "draftd")
    (tmp_path / "draftd").touch(mode=0o755)
    assert background.program(tmp_path / "python") == (str(tmp_path / "draftd"),)


def test_a_service_gets_the_settings_with_absolute_paths_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "DRAFTD_PORT": "9",
        "DRAFTD_PROFILES": "own",
        "HF_HOME": "~/hf",
        "XDG_STATE_HOME": "state",
        "https_proxy": "http://proxy:1",
        "HTTP_PROXY": "http://me:word@proxy:1",
        "PATH": "/a::b:/c",
        "HF_TOKEN": "x",
        "DRAFTD_STATE_DIR": "",
        "HF_HUB_CACHE": "",
        "SHELL": "sh",
    }
    assert background.environment(environ) == {
        "DRAFTD_PORT": "9",
        "DRAFTD_PROFILES": str(tmp_path / "own"),
        "HF_HOME": str(Path.home() / "hf"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "https_proxy": "http://proxy:1",
        "PATH": "/a:/c",
    }
    for name in ("DRAFTD_API_KEY", "draftd_api_key"):
        with pytest.raises(ConfigError, match=r"put api_key into draftd.toml"):
            background.environment({name: "secret"})


def test_keys_of_peers_do_not_go_into_a_service() -> None:
    peers = '[{"url": "http://mini.local:8080", "api_key": "s3cret"}]'
    with pytest.raises(ConfigError, match="DRAFTD_PEERS has keys") as caught:
        background.environment({"DRAFTD_PEERS": peers})
    assert "s3cret" not in str(caught.value)
    harmless = '[{"url": "http://127.0.0.1:8081"}]'
    assert background.environment({"DRAFTD_PEERS": harmless}) == {"DRAFTD_PEERS": harmless}
