"""Checks the machine: versions, settings, the daemon, ports, other programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from draftd.ops.doctor.facts import (
    Check,
    Facts,
    Finding,
    OtherProgram,
    RunningDaemon,
    Severity,
    Versions,
    WantedPort,
)

ENGINE_FITS = SpecifierSet(">=0.32.2,<0.33")  # what the engine's hooks were written for
MIN_PYTHON = SpecifierSet(">=3.11")
MIN_MACOS = SpecifierSet(">=14.0")  # what mlx is built for
MIN_CPU = 80.0  # percent of one processor
MIN_MEMORY_SHARE = 0.1  # of the machine's memory
SOON_EXPIRED = 14.0  # days
MAX_NAMED = 5  # programs that a report names


def versions(facts: Facts) -> Iterator[Finding]:
    """Python, mlx and mlx-lm fit each other and the engine."""
    found = facts.versions
    problems = list(_version_problems(found))
    yield from problems
    if not problems:
        text = f"Python {found.python}, mlx {found.mlx} and mlx-lm {found.mlx_lm} fit each other"
        yield Finding(Severity.FINE, "versions", text)
    if found.system == "Linux":
        yield Finding(
            Severity.NOTE,
            "versions",
            "this is Linux: mlx computes on the CPU here",
            "drafting pays where memory is slow and computing is fast, as on Apple silicon; not here",
            "use it for development; judge speed on a Mac",
        )


def _version_problems(found: Versions) -> Iterator[Finding]:
    if not MIN_PYTHON.contains(found.python, prereleases=True):
        what = f"Python {found.python} is too old"
        yield _broken(what, "draftd needs 3.11 or newer", "install Python 3.12, then draftd again with it")
    if found.system == "Darwin" and found.processor != "arm64":
        why = "mlx runs on Apple silicon only, and not under Rosetta"
        yield _broken(
            "this Python is built for Intel", why, "install a Python for arm64, then draftd with it"
        )
    if found.system == "Darwin" and not MIN_MACOS.contains(found.system_version or "0"):
        what = f"macOS {found.system_version} is too old"
        yield _broken(what, "mlx is built for macOS 14 and newer", "update macOS")
    again = "uv pip install 'mlx>=0.32' 'mlx-lm>=0.32.2,<0.33'  (in draftd's environment)"
    for name, version in (("mlx", found.mlx), ("mlx-lm", found.mlx_lm)):
        if version is None:
            yield _broken(f"{name} is not installed", "no worker can start", again)
    if found.mlx and not SpecifierSet(found.mlx_wanted).contains(found.mlx, prereleases=True):
        what = f"mlx {found.mlx} does not fit mlx-lm {found.mlx_lm}, which needs {found.mlx_wanted}"
        yield _broken(what, "workers may fail at their start or compute wrongly", again)
    if found.mlx_lm and not ENGINE_FITS.contains(found.mlx_lm, prereleases=True):
        yield Finding(
            Severity.WARNING,
            "versions",
            f"mlx-lm {found.mlx_lm} is not a 0.32",
            "the engine's hooks were written for 0.32: acceptance may not be counted, cached prompts may be wrong",
            again,
        )


def _broken(what: str, why: str, do: str) -> Finding:
    return Finding(Severity.ERROR, "versions", what, why, do)


def configuration(facts: Facts) -> Iterator[Finding]:
    """Settings and profiles can be read."""
    if facts.config_error:
        why = "'draftd up' refuses to start, and a reload keeps the old profiles"
        yield Finding(
            Severity.ERROR,
            "profiles",
            facts.config_error,
            why,
            "correct the file; 'draftd check' reads it again",
        )
    else:
        yield Finding(Severity.FINE, "profiles", f"{len(facts.profiles)} profiles are valid")


def daemon(facts: Facts) -> Iterator[Finding]:
    """It runs, answers, and is the installed version; and an earlier one left nothing behind."""
    if facts.state_error:
        why = "files in it could name a process for draftd to stop, or an address to send the key to"
        yield Finding(Severity.ERROR, "daemon", facts.state_error, why, "see above; draftd up refuses it too")
    elif facts.daemon is None:
        yield Finding(
            Severity.NOTE,
            "daemon",
            "no daemon is running",
            "nobody answers requests",
            "draftd up, or without any download: draftd up --demo",
        )
    else:
        yield from _running(facts.daemon, facts.version)
        yield from _other_models(facts)
    if facts.stale_note:
        yield Finding(
            Severity.NOTE,
            "daemon",
            f"an earlier daemon left its note behind in {facts.state_dir}",
            "it was killed, or the machine lost power; nothing relies on the note",
            "draftd doctor --fix removes it",
        )
    if not facts.hub_cache_exists:
        yield Finding(
            Severity.NOTE,
            "daemon",
            f"there is no {facts.hub_cache}",
            "without it a worker that is asked directly answers /v1/models with an empty body",
            "draftd doctor --fix creates it; so does the first download",
        )


def _running(found: RunningDaemon, installed: str) -> Iterator[Finding]:
    if found.rows is None:
        what = f"the daemon (pid {found.pid}) does not answer at {found.url}"
        yield Finding(Severity.ERROR, "daemon", what, "no client is served", f"kill {found.pid}; draftd up")
        return
    yield Finding(Severity.FINE, "daemon", f"draftd {found.version} runs: pid {found.pid}, {found.url}")
    if found.version != installed:
        what = f"the daemon is draftd {found.version}, installed is {installed}"
        yield Finding(Severity.WARNING, "daemon", what, "it runs the old code", "draftd down; draftd up")
    for row in found.rows:
        if row["state"] in {"failed", "backoff"}:
            last = row["last_exit"] or {"reason": "unknown", "meaning": "no exit"}
            what = f"{row['name']} is {row['state']}: {last['reason']} ({last['meaning']})"
            severity = Severity.ERROR if row["state"] == "failed" else Severity.WARNING
            do = f"draftd logs {row['name']}; then draftd restart {row['name']}"
            yield Finding(severity, "daemon", what, "its requests are refused", do)


def _other_models(facts: Facts) -> Iterator[Finding]:
    """The daemon may have been started with --demo, or with other profiles."""
    files = {profile.name: profile.model for profile in facts.profiles}
    rows = (facts.daemon.rows or ()) if facts.daemon else ()
    other = [row["name"] for row in rows if files.get(row["name"], row["model"]) != row["model"]]
    if other:
        what = f"the daemon serves other models than the profile files name: {', '.join(other)}"
        why = "it was started with --demo or other profiles; this report is about the models in the files"
        yield Finding(
            Severity.NOTE,
            "daemon",
            what,
            why,
            "nothing, if you meant that; otherwise: draftd down; draftd up",
        )


def certificate(facts: Facts) -> Iterator[Finding]:
    """The certificate for https can be used, and for a while yet."""
    if facts.certificate_error:
        what, why = facts.certificate_error, "'draftd up' refuses to start"
        if facts.daemon:
            why = (
                "the daemon goes on with the certificate from before, and does not start again with this one"
            )
        yield Finding(Severity.ERROR, "https", what, why, "correct tls_cert and tls_key in the settings")
    elif facts.certificate_days is not None:
        told = f"the certificate expires in {facts.certificate_days:.0f} days"
        if facts.certificate_days >= SOON_EXPIRED:
            yield Finding(Severity.FINE, "https", told)
        else:
            why = "from then on no client trusts the daemon, and it does not start again"
            do = "renew it: the daemon takes the new one by itself"
            yield Finding(Severity.WARNING, "https", told, why, do)
    if facts.exposed_key:
        why = "who has the key can pass for this machine, and read what others send it"
        do = "chmod 600 that file; if somebody may have read it, make a new key and certificate"
        yield Finding(Severity.WARNING, "https", facts.exposed_key, why, do)


def folders(facts: Facts) -> Iterator[Finding]:
    """What a launchd agent has to read is not in a folder that macOS does not let it read."""
    for path in facts.guarded:
        what = f"{path} is in a folder that macOS keeps from programs in the background"
        why = "draftd as a launchd agent gets 'Operation not permitted' there; from a terminal it works"
        do = "move it elsewhere, or allow Python in System Settings, Privacy & Security, Full Disk Access"
        yield Finding(Severity.NOTE, "folders", what, why, do)


def ports(facts: Facts) -> Iterator[Finding]:
    """The ports that draftd wants are free, or held by itself."""
    strangers = [port for port in facts.ports if port.held and not port.ours]
    for port in strangers:
        yield _busy(port, facts.versions.system, running=facts.daemon is not None)
    if facts.ports and not strangers:
        state = "free or draftd's own" if facts.daemon else "free"
        numbers = ", ".join(str(port.number) for port in facts.ports)
        yield Finding(Severity.FINE, "ports", f"{numbers}: {state}")


def _busy(port: WantedPort, system: str, *, running: bool) -> Finding:
    who = "lsof -nP" if system == "Darwin" else "ss -ltnp"
    find = f"sudo {who} {f'-iTCP:{port.number} -sTCP:LISTEN' if system == 'Darwin' else f'sport = :{port.number}'}"
    free = f"kill {' '.join(map(str, port.pids))}" if port.pids else f"find out who with: {find}"
    if port.purpose == "worker":
        why = "workers skip it and take the next free port"
        return Finding(Severity.NOTE, "ports", port.held, why, f"nothing, or: {free}")
    if port.purpose == "fixed":
        why = f"{port.owner} asks for exactly this port, and gets another"
        return Finding(Severity.WARNING, "ports", port.held, why, f"{free}   or change 'port' in the profile")
    if running:
        why = "the running daemon listens elsewhere, so clients that use this port reach another program"
        return Finding(Severity.NOTE, "ports", port.held, why, f"nothing, or: {free}")
    why = "the proxy cannot listen: 'draftd up' ends at once"
    return Finding(
        Severity.ERROR, "ports", port.held, why, f"{free}   or: draftd up --port {port.number + 1}"
    )


def other_programs(facts: Facts) -> Iterator[Finding]:
    """Other programs that take much processor time or memory."""
    least = MIN_MEMORY_SHARE * facts.memory_total
    heavy = [p for p in facts.programs if p.cpu >= MIN_CPU or p.memory >= least]
    yield from map(_heavy, heavy[:MAX_NAMED])


def _heavy(program: OtherProgram) -> Finding:
    used = f"{program.cpu:.0f} % of a processor and {program.memory / 1e9:.1f} GB"
    what = f"{program.name} (pid {program.pid}) uses {used}"
    why = "generation slows down with it, and models may not fit beside it"
    return Finding(Severity.NOTE, "machine", what, why, "end it, if it is not needed")


CHECKS: tuple[Check, ...] = (versions, configuration, daemon, certificate, folders, ports, other_programs)
