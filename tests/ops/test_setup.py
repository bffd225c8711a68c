"""Prompt files, init and pull: what is set up before anything runs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from draftd.errors import ConfigError, DraftdError
from draftd.ops import init, pull
from draftd.profiles import Profile
from draftd.prompt_files import find_prompts
from draftd.settings import shipped_dir

SHIPPED = {kind: shipped_dir(kind) for kind in init.KINDS}


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"name": "p", "model": "org/target", **fields})


# --- prompts ------------------------------------------------------------------------------------------------


def test_the_prompts_that_came_with_draftd() -> None:
    found = {prompt.name: prompt for prompt in find_prompts([SHIPPED["prompts"]], [])}
    assert sorted(found) == ["anti-refusal", "empty", "expert"]
    assert found["empty"].text == ""
    assert 20 < len(found["expert"].text.split()) < 100
    assert 20 < len(found["anti-refusal"].text.split()) < 100


def test_the_first_folders_prompt_counts_and_tells_who_uses_it(tmp_path: Path) -> None:
    (tmp_path / "expert.txt").write_text("mine\n")
    users = [
        profile(name="a", system_prompt="expert"),
        profile(name="b"),
        profile(name="c", system_prompt="expert", system_prompt_mode="prepend"),
    ]
    found = {prompt.name: prompt for prompt in find_prompts([tmp_path, SHIPPED["prompts"]], users)}
    assert found["expert"].text == "mine"
    assert found["expert"].file == tmp_path / "expert.txt"
    assert found["expert"].used_by == ("a (default)", "c (prepend)")
    assert found["empty"].used_by == ()


def test_a_prompt_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bad.txt cannot be read"):
        find_prompts([tmp_path, tmp_path / "missing"], [])


@pytest.mark.fault(73)
def test_a_pipe_in_the_place_of_a_prompt_or_profile_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    name = next(SHIPPED["profiles"].glob("*.toml")).name
    for path in (tmp_path / "pipe.txt", tmp_path / "profiles" / name):
        os.mkfifo(path)
    with pytest.raises(ConfigError, match="it is a named pipe"):
        find_prompts([tmp_path], [])
    assert carried_out(tmp_path)[name].startswith("kept")


# --- init ---------------------------------------------------------------------------------------------------


def carried_out(config: Path, *, force: bool = False) -> dict[str, str]:
    return {c.target.name: init.carry_out(c, force=force) for c in init.plan_copies(SHIPPED, config)}


def test_init_copies_everything_once(tmp_path: Path) -> None:
    first = carried_out(tmp_path / "new")
    assert set(first.values()) == {"copied"}
    for kind, pattern in init.KINDS.items():
        for source in SHIPPED[kind].glob(pattern):
            assert (tmp_path / "new" / kind / source.name).read_bytes() == source.read_bytes()
    assert set(carried_out(tmp_path / "new").values()) == {"exists already"}


def test_init_replaces_an_edited_file_only_by_force_and_keeps_it(tmp_path: Path) -> None:
    carried_out(tmp_path)
    edited = tmp_path / "prompts" / "expert.txt"
    edited.write_text("mine")
    assert carried_out(tmp_path)["expert.txt"].startswith("kept")
    assert edited.read_text() == "mine"
    done = carried_out(tmp_path, force=True)
    assert done["expert.txt"] == "replaced; yours is expert.txt.bak"
    assert done["empty.txt"] == "exists already"
    assert edited.read_text() != "mine"
    assert edited.with_name("expert.txt.bak").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    copy = init.plan_copies(SHIPPED, tmp_path / "file")[0]
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        init.carry_out(copy, force=False)


# --- pull ---------------------------------------------------------------------------------------------------


def test_each_model_of_the_hub_is_wanted_once(tmp_path: Path) -> None:
    profiles = [
        profile(draft_model="org/draft", num_draft_tokens=3),
        profile(name="q", draft_model="org/draft", adapter_path=str(tmp_path)),
        profile(name="local", model=str(tmp_path)),
        profile(name="foreign", model="gguf-something", command=["server", "{port}"]),
    ]
    assert pull.names_at_hub(profiles) == ["org/target", "org/draft"]


@pytest.mark.real
def test_the_files_are_those_that_mlx_lm_fetches() -> None:
    import mlx_lm.utils

    assert list(pull.PATTERNS) == mlx_lm.utils.DEFAULT_ALLOW_PATTERNS


COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# hi", "other.bin": b"more"}


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download needs."""

    def do_GET(self) -> None:
        if "/none" in self.path:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/gated/" in self.path:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "/resolve/" in self.path:
            data = FILES[self.path.rpartition("/")[2]]
            self._answer(200, data, {"ETag": f'"{len(data)}"', "X-Repo-Commit": COMMIT})
        elif "/tree/" in self.path:
            rows = [{"type": "file", "path": k, "size": len(v), "oid": str(len(v))} for k, v in FILES.items()]
            self._answer(200, json.dumps(rows).encode(), {})
        else:
            names = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            self._answer(200, json.dumps({"id": "m", "sha": COMMIT, "siblings": names}).encode(), {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub on this machine; its cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    files = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    try:
        yield tmp_path / "cache"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_pull_downloads_what_mlx_lm_needs(hub: Path) -> None:
    folder = Path(pull.download("org/target"))
    assert folder.is_relative_to(hub)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/gated", "org/gated is gated: accept its terms"),
        ("org/none", "the hub has no model org/none"),
        ("not a name", "the hub has no model not a name"),
    ],
)
def test_what_the_hub_refuses_is_told_in_a_sentence(hub: Path, name: str, said: str) -> None:
    with pytest.raises(DraftdError, match=said):
        pull.download(name)


def test_a_hub_out_of_reach_is_told(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DraftdError, match=r"the hub cannot be reached .* 'draftd up --demo' needs no download"
    ):
        pull.download("org/target")


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(DraftdError, match=r"cannot be downloaded: .*No space left on device"):
        pull.download("org/target")


def test_a_name_that_the_hub_cannot_have_is_refused_without_asking() -> None:
    assert pull.size_at_hub("not a name") == (None, "the hub has no such model, or it is private")


def test_a_hub_that_does_not_answer_tells_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert pull.size_at_hub("org/target") == (None, "")


def test_a_hub_that_answers_tells_the_size_of_the_weights_or_that_it_has_none(hub: Path) -> None:
    assert pull.size_at_hub("org/target") == (len(b"weights"), "")
    assert pull.size_at_hub("org/none") == (None, "the hub has no such model, or it is private")
