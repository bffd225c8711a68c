"""Profiles and prompts as the daemon shows them."""

from __future__ import annotations

from pathlib import Path

from draftd.profiles import Profile
from draftd.web.readable import told
from tests.harness import fake, serving


async def test_profiles_in_force_prompts_and_what_is_wrong_with_the_files(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "brief.txt").write_text("Be brief.\n")
    profiles = {
        "a": fake(top='autostart = false\nsystem_prompt = "brief"'),
        "b": fake(top="autostart = false"),
    }
    async with serving(tmp_path, profiles) as served:
        body = (await served.get("/api/profiles")).json
        assert body["problems"] == []
        assert [one["name"] for one in body["profiles"]] == ["a", "b"]
        assert body["profiles"][0]["settings"]["system_prompt"] == "brief"
        assert "drafters" not in body["profiles"][0]["settings"]
        [brief] = [one for one in body["prompts"] if one["name"] == "brief"]
        assert (brief["text"], brief["used_by"]) == ("Be brief.", ["a (default)"])
        read = (await served.get("/api/status")).json["profiles_read"]
        served.write("c", "modle = 1\n")
        served.daemon.try_reload()
        body = (await served.get("/api/profiles")).json
        assert [one["name"] for one in body["profiles"]] == ["a", "b"]
        assert "c.toml:1: modle: unknown key" in body["problems"][0]
        assert (await served.get("/api/status")).json["profiles_read"] > read
        (tmp_path / "prompts" / "bad.txt").write_bytes(b"\xff")
        body = (await served.get("/api/profiles")).json
        assert "bad.txt cannot be read: it is not UTF-8 text" in body["problems"][1]


def test_secrets_of_a_command_are_not_told() -> None:
    command = (
        *("serve", "--port", "{port}", "--api-key", "s3cret", "--hf-token=s3cret", "PASSWORD=s3cret"),
        *("--model", "{model}", "monkey"),
        *("--max-tokens", "5", "-c", "exec serve --api-key s3cret", "-H", "Authorization: Bearer s3cret"),
        "https://user:s3cret@host/v1",
    )
    shown = told(Profile(name="a", model="m", command=command))["settings"]["command"]
    assert "s3cret" not in " ".join(shown)
    assert shown == [
        *("serve", "--port", "{port}", "--api-key", "…", "--hf-token=…", "PASSWORD=…"),
        *("--model", "{model}", "monkey"),
        *("--max-tokens", "5", "-c", "exec serve --api-key …", "-H", "Authorization: Bearer …"),
        "https://user:…@host/v1",
    ]
