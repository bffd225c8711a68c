"""The doctor's checks: for each finding the facts that cause it, by table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from draftd.hub import ModelConfig, ModelOnDisk
from draftd.ops.doctor import diagnose, exit_code
from draftd.ops.doctor.facts import (
    Download,
    Facts,
    Finding,
    OtherProgram,
    RunningDaemon,
    Severity,
    Versions,
    Vocabularies,
    WantedPort,
)
from draftd.profiles import Profile

GB = 10**9
FINE, NOTE, WARNING, ERROR = Severity
MAC = Versions("3.12.4", "arm64", "Darwin", "15.1", "0.32.4", "0.32.2", ">=0.32.2")
QWEN = ModelConfig(model_type="qwen2")
BIG = ModelOnDisk("big", local=False, folder=Path("/big"), weight_bytes=2 * GB, config=QWEN)
SMALL = replace(BIG, name="small", weight_bytes=GB // 2)


def profile(name: str, length: int = 5, **fields: object) -> Profile:
    pair = {"model": "big", "draft_model": "small", "num_draft_tokens": length}
    return Profile.model_validate({"name": name, **pair, **fields})


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model": "big",
        "draft_model": "small",
        "drafters": ["lookup", "model"],
        "num_draft_tokens": 5,
        "auto_draft": False,
        "draft_refusal": None,
        "shares_with": [],
        "state": "ready",
        "last_exit": None,
        "acceptance": {"proposed": 1000, "accepted": 800, "ratio": 0.8},
        **fields,
    }


def low(name: str, length: int, ratio: float = 0.4, proposed: int = 1000) -> dict[str, Any]:
    figures = {"proposed": proposed, "accepted": int(ratio * proposed), "ratio": ratio}
    return row(name, num_draft_tokens=length, acceptance=figures)


def by_drafter(row: dict[str, Any], **accepted: int) -> dict[str, Any]:
    """Say how many of a thousand tokens of each drafter were accepted."""
    figures = {name: {"proposed": 1000, "accepted": count} for name, count in accepted.items()}
    return row | {"speculation": {"by_drafter": figures}}


def bench(**speed_ups: float) -> dict[str, Any]:
    ranked = sorted(speed_ups.items(), key=lambda item: -item[1])
    overall = [
        {"variant": f"{key[1:]} (x)", "speed_up": value, "low": value - 0.1, "high": value + 0.1}
        for key, value in ranked
    ]
    return {"at": "2026-11-23T18:00:00+00:00", "model": "big", "draft_model": "small", "overall": overall}


WELL = Facts(
    version="1.0",
    versions=MAC,
    profiles=(profile("p-fast", 3), profile("p-max", 7, autostart=False)),
    ports=(WantedPort(8000, "worker", "workers"), WantedPort(8080, "proxy", "draftd")),
    models={"big": BIG, "small": SMALL},
    vocabularies=(Vocabularies("big", "small", 0, 1000),),
    memory_total=16 * GB,
    memory_share=12 * GB,
    memory_free=8 * GB,
    disk_free=100 * GB,
    state_dir=Path("/state"),
    daemon=RunningDaemon(4, "http://127.0.0.1:8080", "1.0", (row("p-fast"),)),
    bench=bench(d3=1.5, d7=1.2),
)


def found(**facts: Any) -> list[Finding]:
    """The findings that are not fine when only `facts` differ from a machine where all is well."""
    return [finding for finding in diagnose(replace(WELL, **facts)) if finding.severity != FINE]


def test_where_all_is_well_the_doctor_says_what_it_looked_at_and_nothing_else() -> None:
    findings = diagnose(WELL)
    assert {finding.severity for finding in findings} == {FINE}
    assert exit_code(findings) == 0
    assert [finding.what for finding in findings] == [
        "Python 3.12.4, mlx 0.32.4 and mlx-lm 0.32.2 fit each other",
        "2 profiles are valid",
        "draftd 1.0 runs: pid 4, http://127.0.0.1:8080",
        "8000, 8080: free or draftd's own",
        "big is here, 2.0 GB",
        "small is here, 500 MB",
        "p-fast: drafted by lookup and small (3 tokens)",
        "p-max: drafted by lookup and small (7 tokens)",
        "small and big have one vocabulary of 1000 tokens",
        "1 worker starts by itself, with 2.5 GB of weights; the memory is 16.0 GB",
        "p-fast: 80% of the draft model's tokens are accepted",
        "p-fast: 1.50x the speed of no drafting (bench of 2026-11-23)",
        "p-max: 1.20x the speed of no drafting (bench of 2026-11-23)",
    ]


AT_HUB = {"big": ModelOnDisk("big", local=False), "small": SMALL}
PLAIN: dict[str, Any] = {"draft_model": None, "num_draft_tokens": None}
LOOKING = profile("lookup", **PLAIN, drafters=("lookup",), autostart=False)
NODE: tuple[str, tuple[int, ...]] = ("port 8080 is held by node (pid 77)", (77,))
TABLE: list[tuple[str, dict[str, Any], Severity, str, str]] = [
    # what differs, and the finding's severity, what, and do
    ("old Python", {"versions": replace(MAC, python="3.10.1")}, ERROR, "Python 3.10.1 is too old", "install"),
    ("Rosetta", {"versions": replace(MAC, processor="x86_64")}, ERROR, "built for Intel", "arm64"),
    (
        "old macOS",
        {"versions": replace(MAC, system_version="13.7")},
        ERROR,
        "macOS 13.7 is too old",
        "update",
    ),
    ("no mlx", {"versions": replace(MAC, mlx=None)}, ERROR, "mlx is not installed", "uv pip install"),
    (
        "no mlx-lm",
        {"versions": replace(MAC, mlx_lm=None)},
        ERROR,
        "mlx-lm is not installed",
        "uv pip install",
    ),
    ("misfit", {"versions": replace(MAC, mlx="0.31.0")}, ERROR, "which needs >=0.32.2", "uv pip install"),
    ("new mlx-lm", {"versions": replace(MAC, mlx_lm="0.33.0")}, WARNING, "0.33.0 is not a 0.32", "<0.33"),
    ("Linux", {"versions": replace(MAC, system="Linux")}, NOTE, "mlx computes on the CPU", "Mac"),
    ("bad profile", {"config_error": "a.toml:3: no"}, ERROR, "a.toml:3: no", "draftd check"),
    ("no daemon", {"daemon": None}, NOTE, "no daemon is running", "draftd up"),
    ("state folder", {"state_error": "others can write in /state"}, ERROR, "others can write", "see above"),
    (
        "private folder",
        {"guarded": (Path("/Users/me/Documents/p"),)},
        NOTE,
        "/Users/me/Documents/p is in a folder that macOS keeps",
        "Full Disk Access",
    ),
    ("stale note", {"stale_note": True}, NOTE, "left its note behind in /state", "--fix"),
    ("no cache", {"hub_cache": Path("/h"), "hub_cache_exists": False}, NOTE, "there is no /h", "--fix"),
    (
        "mute",
        {"daemon": RunningDaemon(4, "http://d", "1.0", None)},
        ERROR,
        "(pid 4) does not answer",
        "kill 4",
    ),
    ("old code", {"version": "2.0"}, WARNING, "the daemon is draftd 1.0, installed is 2.0", "draftd down"),
    (
        "failed worker",
        {
            "daemon": RunningDaemon(
                4,
                "http://d",
                "1.0",
                (row("w", state="failed", last_exit={"reason": "exit", "meaning": "SIGKILL"}),),
            )
        },
        ERROR,
        "w is failed: exit (SIGKILL)",
        "draftd logs w",
    ),
    (
        "backing off",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (row("w", state="backoff"),))},
        WARNING,
        "w is backoff",
        "draftd restart w",
    ),
    (
        "other models",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (row("p-fast", model="demo"),))},
        NOTE,
        "other models than the profile files name: p-fast",
        "nothing, if you meant that",
    ),
    (
        "proxy port",
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE),), "daemon": None},
        ERROR,
        "port 8080 is held by node (pid 77)",
        "kill 77   or: draftd up --port 8081",
    ),
    (
        "proxy port of a stranger while the daemon is elsewhere",
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE),)},
        NOTE,
        "port 8080 is held by node (pid 77)",
        "kill 77",
    ),
    (
        "nameless holder on a Mac",
        {
            "ports": (
                WantedPort(
                    8080, "proxy", "draftd", "port 8080 is held by a process that the system does not name"
                ),
            ),
            "daemon": None,
        },
        ERROR,
        "does not name",
        "sudo lsof -nP -iTCP:8080 -sTCP:LISTEN",
    ),
    (
        "worker port",
        {"ports": (WantedPort(8000, "worker", "workers", "port 8000 is held by x (pid 5)", (5,)),)},
        NOTE,
        "port 8000 is held by x (pid 5)",
        "nothing, or: kill 5",
    ),
    (
        "fixed port",
        {"ports": (WantedPort(9000, "fixed", "p-max", "port 9000 is held by x (pid 5)", (5,)),)},
        WARNING,
        "port 9000 is held by x (pid 5)",
        "kill 5",
    ),
    (
        "busy program",
        {"programs": (OtherProgram(9, "ollama", 250.0, GB),)},
        NOTE,
        "ollama (pid 9) uses 250 % of a processor and 1.0 GB",
        "end it",
    ),
    ("large program", {"programs": (OtherProgram(9, "chrome", 1.0, 4 * GB),)}, NOTE, "4.0 GB", "end it"),
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
        "what the engine says",
        {
            "daemon": RunningDaemon(
                4, "http://d", "1.0", (row("p-fast", draft_refusal="the layers keep Odd"),)
            )
        },
        ERROR,
        "p-fast cannot draft: the layers keep Odd",
        "remove draft_model and drafters from p-fast",
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
    (
        "low acceptance, with a shorter draft at hand",
        {
            "daemon": RunningDaemon(
                4, "http://d", "1.0", (low("p-max", 7), row("p-mid"), row("p-fast", num_draft_tokens=3))
            )
        },
        WARNING,
        "p-max: 40% of the draft model's tokens are accepted",
        "try p-mid (5 draft tokens)",
    ),
    (
        "low acceptance with the shortest draft",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (low("p-fast", 3), row("p-max", num_draft_tokens=7)))},
        WARNING,
        "p-fast: 40% of the draft model's tokens are accepted",
        "try no draft_model",
    ),
    (
        "a draft model that is seldom right, beside lookups that are always",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (by_drafter(row("p-max"), model=300, lookup=1000),))},
        WARNING,
        "p-max: 30% of the draft model's tokens are accepted",
        "try no draft_model",
    ),
    ("never measured", {"bench": None}, NOTE, "the speedup was never measured here", "draftd bench"),
    (
        "other models measured",
        {"bench": bench(d3=1.5) | {"model": "other"}},
        NOTE,
        "never measured",
        "draftd bench",
    ),
    (
        "too uncertain to call slower",
        {"bench": bench(d3=1.4, d7=0.93)},
        NOTE,
        "p-max: 0.93x the speed of no drafting",
        "draftd bench --runs 9",
    ),
    (
        "too uncertain to call faster",
        {"bench": bench(d3=1.4, d7=1.08)},
        NOTE,
        "p-max: 1.08x the speed of no drafting",
        "draftd bench --runs 9",
    ),
    (
        "slower, another length is faster",
        {"bench": bench(d3=1.4, d7=0.8)},
        WARNING,
        "p-max: 0.80x the speed of no drafting (bench of 2026-11-23)",
        "try 3 (x) draft tokens: 1.40x",
    ),
]


@pytest.mark.parametrize(
    ("facts", "severity", "what", "do"), [case[1:] for case in TABLE], ids=[c[0] for c in TABLE]
)
def test_each_finding(facts: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    fitting = [finding for finding in found(**facts) if what in finding.what]
    assert [finding.severity for finding in fitting] == [severity], found(**facts)
    assert do in fitting[0].do
    assert len(fitting[0].why) > 10


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


def test_when_no_length_is_faster_than_none_the_draft_model_is_to_go() -> None:
    slow = found(bench=bench(d3=0.85, d7=0.8))
    assert [finding.severity for finding in slow] == [WARNING, WARNING]
    assert {finding.do for finding in slow} == {
        "remove draft_model from the profile: no draft length was clearly faster than none"
    }


@pytest.mark.parametrize(
    "facts",
    [
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE, ours=True),)},
        {
            "daemon": RunningDaemon(4, "http://d", "1.0", (low("p-fast", 3, proposed=50),))
        },  # too few to judge by
        {"daemon": RunningDaemon(4, "http://d", "1.0", (low("plain", 0),))},
        {
            "memory_total": 1000 * GB,
            "memory_share": 750 * GB,
            "profiles": (profile("p-fast", 3), profile("b", 7)),
        },  # little to save
        {"profiles": (profile("p-fast", 3), profile("p-max", 7)), "share": True},
        {"profiles": (profile("p-fast", 3), profile("p-max", 7, share_engine=False)), "share": True},
        {"memory_free": GB},  # while the daemon runs, what is not free is its own
        {"programs": (OtherProgram(9, "idle", 5.0, GB),)},
        {"models": {"big": replace(BIG, local=True), "small": SMALL}},
        {
            "models": {"big": replace(BIG, config=ModelConfig("phi3small"))},
            "profiles": (profile("p-fast", **PLAIN),),  # it wants no drafts
        },
        {  # a worker without drafters has nothing to lose
            "daemon": RunningDaemon(4, "http://d", "1.0", (row("p-fast", drafters=[], draft_refusal="no"),))
        },
    ],
)
def test_what_is_in_order_is_no_finding(facts: dict[str, Any]) -> None:
    assert found(**facts) == []


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), ([FINE, NOTE], 0), ([NOTE, WARNING, FINE], 1), ([WARNING, ERROR], 2)],
)
def test_the_exit_code_is_that_of_the_worst(severities: list[Severity], code: int) -> None:
    assert exit_code(Finding(severity, "t", "w") for severity in severities) == code


@pytest.mark.parametrize(
    ("facts", "severity", "words"),
    [
        (Facts("1", MAC, certificate_days=90.0), FINE, "expires in 90 days"),
        (Facts("1", MAC, certificate_days=3.2), WARNING, "expires in 3 days"),
        (Facts("1", MAC, certificate_error="tls_cert: /c: is broken"), ERROR, "tls_cert: /c: is broken"),
    ],
)
def test_a_certificate_is_judged_by_how_long_it_can_be_used(
    facts: Facts, severity: Severity, words: str
) -> None:
    [found] = [one for one in diagnose(facts) if one.topic == "https"]
    assert found.severity == severity
    assert words in found.what
    assert bool(found.do) == (severity > FINE)
