"""What the doctor says of models: whether they are here, fit, and can draft, by table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from draftd.hub import ModelConfig, ModelOnDisk
from draftd.ops.doctor import diagnose
from draftd.ops.doctor.facts import Download, Severity, Vocabularies
from tests.ops.doctor.well import (
    BIG,
    ERROR,
    FINE,
    GB,
    NOTE,
    PLAIN,
    SMALL,
    WARNING,
    WELL,
    Case,
    judge,
    of,
    profile,
)

AT_HUB = {"big": ModelOnDisk("big", local=False), "small": SMALL}


LOOKING = profile("lookup", **PLAIN, drafters=("lookup",), autostart=False)

TABLE: list[Case] = [
    (
        "to download",
        {"models": AT_HUB, "downloads": {"big": Download(3 * GB)}},
        NOTE,
        "big is not downloaded (3.0 GB)",
        "draftd pull p-fast",
    ),
    (
        "to download, size unknown",
        {"models": AT_HUB, "downloads": {"big": Download()}},
        NOTE,
        "size unknown",
        "draftd pull p-fast",
    ),
    (
        "disk full",
        {"models": AT_HUB, "downloads": {"big": Download(2 * GB)}, "disk_free": GB},
        ERROR,
        "the models to download take 2.0 GB, the disk has 1.0 GB left",
        "free some",
    ),
    (
        "unknown to the hub",
        {"models": AT_HUB, "downloads": {"big": Download(refused="the hub has no such model")}},
        ERROR,
        "big: the hub has no such model",
        "correct the name in the profile p-fast",
    ),
    (
        "half downloaded",
        {"models": {"big": replace(BIG, missing=("model-2.safetensors",)), "small": SMALL}},
        WARNING,
        "big is only partly downloaded: model-2.safetensors is missing",
        "draftd pull p-fast",
    ),
    (
        "no such folder",
        {"models": {"big": ModelOnDisk("big", local=True), "small": SMALL}},
        ERROR,
        "there is no big",
        "correct the path in the profile p-fast",
    ),
    (
        "a folder that is no model",
        {"models": {"big": replace(BIG, local=True, missing=("config.json",)), "small": SMALL}},
        ERROR,
        "big lacks config.json",
        "correct the path",
    ),
    (
        "a type of which no pass can be trusted",
        {"models": {"big": replace(BIG, config=ModelConfig("phi3small")), "small": SMALL}},
        ERROR,
        "big (phi3small) cannot draft: mlx_lm lets its tokens see",
        "remove draft_model and drafters from p-fast, p-max",
    ),
    (
        "the same of a draft model",
        {"models": {"big": BIG, "small": replace(SMALL, config=ModelConfig("phi3small"))}},
        ERROR,
        "small (phi3small) cannot draft",
        "or choose another model",
    ),
    (
        "the same where lookup alone would draft",
        {
            "models": {"big": replace(BIG, config=ModelConfig("phi3small")), "small": SMALL},
            "profiles": (LOOKING, *WELL.profiles),
        },
        ERROR,
        "big (phi3small) cannot draft",
        "from lookup, p-fast, p-max",
    ),
    (
        "unknown type",
        {
            "models": {"big": BIG, "small": replace(SMALL, config=ModelConfig("odd"))},
            "unsupported": frozenset({"odd"}),
        },
        ERROR,
        "does not know the model type odd (small)",
        "update mlx-lm",
    ),
    (
        "unknown type, where nothing is drafted",
        {
            "models": {"big": replace(BIG, config=ModelConfig("odd"))},
            "profiles": (profile("plain", **PLAIN),),
            "unsupported": frozenset({"odd"}),
        },
        ERROR,
        "does not know the model type odd (big)",
        "update mlx-lm",
    ),
    (
        "other vocabulary",
        {"vocabularies": (Vocabularies("big", "small", 900, 1000),)},
        ERROR,
        "900 of 1000 tokens mean something else to small and big",
        "the target's own family",
    ),
    (
        "a few other tokens",
        {"vocabularies": (Vocabularies("big", "small", 5, 1000),)},
        NOTE,
        "5 of 1000 tokens mean something else",
        "nothing",
    ),
    (
        "vocabulary unknown",
        {"vocabularies": (Vocabularies("big", "small", None),)},
        NOTE,
        "the tokenizers of small and big cannot be compared",
        "draftd test",
    ),
    ("no room", {"memory_total": 2 * GB}, ERROR, "1 worker starts by itself", "draftd up PROFILE"),
    (
        "little room",
        {"memory_share": 2 * GB},
        WARNING,
        "with 2.5 GB of weights",
        "autostart = false",
    ),
    (
        "memory in use",
        {"memory_free": GB, "daemon": None},
        WARNING,
        "the memory is 16.0 GB",
        "draftd up PROFILE",
    ),
    (
        "the same weights three times",
        {"profiles": tuple(profile(n, length) for n, length in (("a", 3), ("b", 5), ("c", 7)))},
        NOTE,
        "3 workers start by themselves, with 7.5 GB of weights",
        "share_engine = true in draftd.toml: one worker for a, b, c (saves 5.0 GB)",
    ),
    (
        "the same weights once, and once apart",
        {
            "profiles": tuple(
                profile(n, share_engine=shares) for n, shares in (("a", True), ("b", True), ("c", None))
            ),
        },
        NOTE,
        "2 workers start by themselves, with 5.0 GB of weights",
        "one worker for a, b, c (saves 2.5 GB)",
    ),
    (
        "no room apart",
        {
            "memory_total": 4 * GB,
            "memory_share": 3 * GB,
            "profiles": (profile("a"), profile("b"), profile("c", limits={"queue": 1})),
        },
        ERROR,
        "3 workers start by themselves, with 7.5 GB of weights",
        "one worker for a, b (saves 2.5 GB); or 'draftd up PROFILE'",
    ),
]


@of(TABLE)
def test_each_finding(facts: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    judge(facts, severity, what, do)


def test_what_sharing_would_save_is_told_though_it_is_little() -> None:
    facts = replace(
        WELL,
        memory_total=1000 * GB,
        memory_share=750 * GB,
        profiles=(profile("p-fast", 3), profile("p-max", 7)),
    )
    [memory] = [finding for finding in diagnose(facts) if finding.topic == "memory"]
    assert memory.severity == FINE
    assert memory.what.endswith("the memory is 1000.0 GB; sharing engines would save 2.5 GB")


def test_what_only_a_request_would_download_need_not_fit_on_the_disk() -> None:
    asleep = replace(
        WELL,
        models=AT_HUB,
        downloads={"big": Download(2 * GB)},
        profiles=tuple(each.model_copy(update={"autostart": False}) for each in WELL.profiles),
        disk_free=GB,
    )
    assert [finding.what for finding in diagnose(asleep) if finding.severity != FINE] == [
        "big is not downloaded (2.0 GB)"
    ]
