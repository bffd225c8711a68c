"""Checks of profiles with several ranks: whether the model can be split, and the machines are ready. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from draftd.ops.doctor.facts import Check, Facts, Finding, HostReport, Severity

MAX_CLOCK_OFF = 2.0  # seconds


def split(facts: Facts) -> Iterator[Finding]:
    """The target models can be split over the ranks."""
    for name, reasons in facts.unsplittable.items():
        why = f"the group of {name} refuses to start; with mlx_lm alone the answers would be garbage, or fail"
        do = "choose another number of ranks, another mode, or a model that can be split"
        for reason in reasons:
            yield Finding(Severity.ERROR, "ranks", f"{name}: {reason}", why, do)
    for profile in facts.profiles:
        if profile.distributed and profile.name not in facts.unsplittable:
            what = f"{profile.name}: its model can be split over {profile.distributed.size} ranks"
            yield Finding(Severity.FINE, "ranks", what)


def machines(facts: Facts) -> Iterator[Finding]:
    """The machines of the groups can be reached, and have what they need."""
    for host in facts.hosts:
        found = list(_judged(host))
        yield from found
        if not found and host.host:
            what = f"{host.host} ({host.profile}): it can be reached, and has the same versions and the model"
            yield Finding(Severity.FINE, "ranks", what)


def _judged(host: HostReport) -> Iterator[Finding]:
    lost = f"the group of {host.profile} cannot start"
    where = host.host or "this machine"
    if host.unreachable:
        what = f"ssh cannot reach {where}: {host.unreachable}"
        do = f"'ssh {where} true' has to work without asking: ssh-copy-id {where}, and turn on Remote Login there"
        yield Finding(Severity.ERROR, "ranks", what, lost, do)
    if host.broken:
        what = f"draftd does not run on {where}: {host.broken}"
        do = "install draftd there in the same place, or name its Python: python = ... in [distributed]"
        yield Finding(Severity.ERROR, "ranks", what, lost, do)
    if host.differing:
        what = f"{where} has {', '.join(host.differing)}"
        yield Finding(Severity.ERROR, "ranks", what, lost, "install the same versions on all machines")
    for name in host.missing:
        what = f"{where} does not have {name}"
        if name.startswith("/"):
            do = f"copy the folder there, under the same name: rsync -a {name}/ {where}:{name}/"
            yield Finding(Severity.ERROR, "ranks", what, lost, do)
        else:
            why = "its rank downloads it at the first start, while the others wait"
            yield Finding(Severity.WARNING, "ranks", what, why, f"draftd pull --hosts {host.profile}")
    if host.strange:
        what = f"{where} does not have the address {', '.join(host.strange)}"
        do = "correct the ips in the hostfile; mlx.distributed_config writes one"
        yield Finding(Severity.ERROR, "ranks", what, lost, do)
    if abs(host.clock_off) > MAX_CLOCK_OFF:
        what = f"the clock of {where} is {abs(host.clock_off):.0f} s {'ahead' if host.clock_off > 0 else 'behind'}"
        why = "the logs of the machines cannot be put in order"
        yield Finding(Severity.NOTE, "ranks", what, why, "set both clocks from the network")


CHECKS: tuple[Check, ...] = (split, machines)
