"""The checks of this machine and of a demo that runs on it."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import platform
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import psutil

from draftd.protocol import RECORD_PREFIX
from draftd.sockets import LOOPBACK, parse_lsof
from tests.mac_check.results import Check, FailedError, SkippedError
from tests.mac_check.site import (
    ANSWER_LIMIT,
    DRAFTD,
    Site,
    answers,
    ask,
    family_of,
    free_port,
    running,
    until,
)
from tests.mac_check.tool_output import assertions, footprint_bytes, wired_bytes
from tests.ties import Token, noise_of, verdict

READY_LIMIT = 60.0  # seconds, as promised
AGAIN_LIMIT = 60.0
ENDED_LIMIT = 5.0
HELD_LIMIT = 15.0
MAX_FILES, CLIENTS = 256, 200
HEALTH_LIMIT = 1.0
LEFT_WIRED = 256 * 2**20  # bytes: others wire and let go as well
OFF_BY = 0.25  # of the footprint, or
OFF_BY_BYTES = 64 * 2**20
EOS = "2"  # the demo's end of a turn, as a token: without it an answer is as long as one asks for
PROMPTS = ("What is speculative decoding?", "What does draftd do?", "Hi!")
LONG = 3000  # tokens: more than anybody waits for
DEVICE = """
import json, mlx.core as mx
from draftd.engine.memory_limits import FREE_CACHE_SHARE, limits_of
info = mx.device_info() if mx.metal.is_available() else {}
limits = limits_of(info)
own = {"wired": limits.own, "prompt cache": limits.prompt_cache, "free cache": limits.gpu // FREE_CACHE_SHARE}
print(json.dumps({"device": info, "limits": own}))
"""


def versions(site: Site) -> str:
    """What runs here, and that it is built for this processor."""
    mac = platform.system() == "Darwin"
    if mac and site.call("sysctl", "-n", "sysctl.proc_translated").stdout.strip() == "1":
        raise FailedError(f"this Python ({sys.executable}) runs under Rosetta")
    if mac and platform.machine() != "arm64":
        raise FailedError(f"this is {platform.machine()}: mlx runs on Apple silicon only")
    system = f"macOS {platform.mac_ver()[0]}" if mac else platform.system()
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("draftd", "mlx", "mlx-lm"))
    return f"{system}, {platform.machine()}, Python {platform.python_version()}, {packages}"


def device(site: Site) -> str:
    """The GPU as mlx describes it, and what a worker allows itself as long as the daemon gives it no less."""
    done = site.call(sys.executable, "-c", DEVICE)
    if done.returncode:
        raise FailedError(done.stderr.strip()[-300:])
    (site.out / "device.json").write_text(done.stdout)
    found = json.loads(done.stdout)
    info = found["device"]
    if not info:
        raise SkippedError("mlx finds no Metal here")
    name = str(info.get("device_name", "a device without a name"))
    if "paravirtual" in name.lower():
        site.virtual_gpu = name
    share = info["max_recommended_working_set_size"] / info["memory_size"]
    limits = ", ".join(f"{key} {_size(value)}" for key, value in found["limits"].items())
    set_by_hand = site.call("sysctl", "-n", "iogpu.wired_limit_mb").stdout.strip()
    return (
        f"{name}: {_size(info['memory_size'])}, the GPU's share {share:.0%}, iogpu.wired_limit_mb {set_by_hand}; "
        f"at most for a worker: {limits}"
    )


def ready(site: Site) -> str:
    """The demo serves within a minute."""
    site.wired_before = _wired(site, "vm-stat-before")
    site.start_demo(MAX_FILES)

    def serves() -> bool:
        return site.needs_demo() is not None and answers(f"{site.url}/readyz") and _all_ready(site)

    took = until(serves, READY_LIMIT, "all workers ready")
    return f"after {took:.1f} s; workers: {len(_serving(site))}"


def hooks(site: Site) -> str:
    """Every hook of the engine is placed, in every worker."""
    counts = []
    for row in _serving(site):
        lines = ask(f"{site.url}/api/logs/{row['name']}?raw=1&lines=1000").splitlines()
        records = [json.loads(line.partition(RECORD_PREFIX)[2]) for line in lines if RECORD_PREFIX in line]
        started = [record for record in records if record["event"] == "started"]
        if not started:
            raise FailedError(f"the log of {row['name']} has no record of its start")
        placed: Mapping[str, str] = started[-1]["hooks"]
        if missing := {name: why for name, why in placed.items() if why != "placed"}:
            raise FailedError(f"{row['name']}: {missing}")
        counts.append(len(placed))
    return f"{min(counts)} hooks; workers: {len(counts)}"


def memory(site: Site) -> str:
    """What draftd reports as a worker's memory is what macOS reports."""
    row = _serving(site)[0]
    ask(f"{site.url}/v1/chat/completions", _chat(row["name"], "Hi!"))
    told = int(_row(site, row["name"])["memory_bytes"])
    footprint = footprint_bytes(site.kept("footprint", "footprint", str(row["pid"])))
    figure = f"draftd says {_size(told)}, footprint {_size(footprint)}"
    if abs(told - footprint) > max(OFF_BY_BYTES, OFF_BY * footprint):
        raise FailedError(figure)
    return figure


def port_on_all_v4(site: Site) -> str:
    """A port that another program holds on * is not shared with it."""
    return _held(site, "0.0.0.0", socket.AF_INET, "lsof-any-v4")


def port_on_all_v6(site: Site) -> str:
    """The same for [::]."""
    return _held(site, "::", socket.AF_INET6, "lsof-any-v6")


def _held(site: Site, address: str, family: socket.AddressFamily, name: str) -> str:
    port = free_port()
    with socket.create_server((address, port), family=family):
        lsof = ("lsof", "+c0", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc")
        seen = list(parse_lsof(site.kept(name, *lsof).splitlines()))
        state = str(site.folder / "second")
        done = site.call(
            DRAFTD, "up", "--demo", "--plain", "--port", str(port), env={"DRAFTD_STATE_DIR": state}
        )
    us = psutil.Process().pid
    if us not in [process.pid for process in seen]:
        raise FailedError(f"lsof names {', '.join(map(str, seen)) or 'nobody'} and not pid {us}")
    if done.returncode != 2 or f"(pid {us})" not in done.stderr:
        raise FailedError(f"'up' ended with {done.returncode}: {done.stderr.strip()[:300]}")
    return f"refused with code 2, and the holder named: {seen[0]}"


def idle_clients(site: Site) -> str:
    """Many idle clients do not use up the few files that a process of macOS may open."""
    site.needs_demo()
    with ExitStack() as held:
        for _ in range(CLIENTS):
            held.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=10))
        began = time.monotonic()
        ask(f"{site.url}/healthz")
        ask(f"{site.url}/v1/chat/completions", _chat(site.status()["default_model"], "Hi!"))
        took = time.monotonic() - began
    if took > HEALTH_LIMIT * 5:
        raise FailedError(f"a health check and an answer took {took:.1f} s")
    return f"{CLIENTS} idle at a limit of {MAX_FILES} files: a health check and an answer took {took:.2f} s"


def stays_awake(site: Site) -> str:
    """The Mac does not fall asleep while a request is open, and may when none is."""
    demo = site.needs_demo()

    def held(name: str) -> bool:
        said = site.kept(name, "pmset", "-g", "assertions")
        ours = {process.pid for process in family_of(demo.pid)}
        kinds = {found.kind for found in assertions(said) if found.pid in ours}
        return "PreventUserIdleSystemSleep" in kinds

    body = _chat(site.status()["default_model"], "Hi!", max_tokens=LONG) | {"stream": True}
    connection = http.client.HTTPConnection(LOOPBACK, site.port, timeout=ANSWER_LIMIT)
    with closing(connection):
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        there = until(lambda: held("pmset-held"), HELD_LIMIT, "an assertion while a request is open")
    gone = until(lambda: not held("pmset-gone"), 2 * HELD_LIMIT, "no assertion once no request is open")
    return f"there after {there:.1f} s, gone {gone:.1f} s after the request"


def greedy(site: Site) -> str:
    """Drafting does not change a greedy text, except where two tokens are equally likely."""
    name = site.status()["default_model"]
    pairs = [[_tokens(site, name, prompt, length) for length in (0, 5)] for prompt in PROMPTS]
    counted = _row(site, name)["acceptance"]
    if not counted["proposed"]:
        raise FailedError("nothing was drafted")
    noise = max(noise_of(plain, drafted) for plain, drafted in pairs)
    found = [verdict(plain, drafted, noise) for plain, drafted in pairs]
    if different := [text for text in found if text.startswith("NO")]:
        raise FailedError("; ".join(different))
    told = f"{counted['accepted']} of {counted['proposed']} draft tokens kept, noise {noise:.1e}"
    return f"{len(found)} texts of {len(pairs[0][0])} tokens: {', '.join(found)}; {told}"


def _tokens(site: Site, name: str, prompt: str, length: int) -> list[Token]:
    wanted = {"temperature": 0, "logprobs": True, "top_logprobs": 5, "num_draft_tokens": length}
    answer = json.loads(ask(f"{site.url}/v1/chat/completions", _chat(name, prompt, max_tokens=60) | wanted))
    return [Token.of(item) for item in answer["choices"][0]["logprobs"]["content"]]


def killed_worker(site: Site) -> str:
    """A killed worker is replaced."""
    before = _serving(site)[0]
    family_of(before["pid"])[0].kill()

    def replaced() -> bool:
        now = _row(site, before["name"])
        return bool(now["state"] == "ready" and now["pid"] != before["pid"])

    took = until(replaced, AGAIN_LIMIT, "another worker ready")
    return f"another one ready after {took:.1f} s"


def killed_daemon(site: Site) -> str:
    """A killed daemon leaves no process, and no wired memory."""
    demo = site.needs_demo()
    family = family_of(demo.pid)
    demo.kill()
    demo.wait()
    took = until(lambda: not running(family), ENDED_LIMIT, "all workers ended")
    ended = f"all of its processes ended after {took:.1f} s"
    if site.wired_before is None:
        return f"{ended}; there is no vm_stat to ask for wired memory"
    if site.virtual_gpu:
        return f"{ended}; wired memory not judged: {site.virtual_gpu}"
    before = site.wired_before
    last = before

    def back() -> bool:
        nonlocal last
        last = _wired(site, "vm-stat-after") or before
        return last - before < LEFT_WIRED

    until(back, 10.0, "wired memory back")
    return f"{ended}; wired memory {(last - before) / 1e6:+.0f} MB"


# --- helpers ------------------------------------------------------------------------------------------------


def _wired(site: Site, name: str) -> int | None:
    try:
        return wired_bytes(site.kept(name, "vm_stat"))
    except SkippedError:
        return None


def _all_ready(site: Site) -> bool:
    return all(row["state"] in {"ready", "asleep", "stopped"} for row in site.status()["workers"])


def _serving(site: Site) -> list[dict[str, Any]]:
    """The workers that are up, without those that start with their first request."""
    return [row for row in site.status()["workers"] if row["state"] == "ready"]


def _row(site: Site, name: str) -> dict[str, Any]:
    return next(row for row in site.status()["workers"] if row["name"] == name)


def _chat(model: str, prompt: str, max_tokens: int = 20) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "logit_bias": {EOS: -100},
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


MACHINE = (Check("versions and architecture", versions), Check("device and limits", device))
DAEMON = (
    Check("demo ready in 60 s", ready),
    Check("every hook placed", hooks),
    Check("a worker's memory", memory),
    Check("a port held on *", port_on_all_v4),
    Check("a port held on [::]", port_on_all_v6),
    Check("200 idle clients", idle_clients),
    Check("power assertion", stays_awake),
    Check("greedy text, drafted and not", greedy),
    Check("worker killed", killed_worker),
    Check("daemon killed", killed_daemon),
)
