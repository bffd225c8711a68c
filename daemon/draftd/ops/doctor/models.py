"""Checks the models: whole, of a known type, able to draft, of one vocabulary, and small enough. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from draftd.hub import NEVER_DRAFTED, ModelOnDisk
from draftd.ops.doctor.drafting import UNDRAFTED, without_drafts
from draftd.ops.doctor.facts import Check, Facts, Finding, Severity, Vocabularies
from draftd.ops.drafting_words import what_drafts
from draftd.profiles import Profile
from draftd.sharing import could_share, groups

MIN_SAVING = 0.02  # of the memory; less is not worth a note
MAX_DIFFERING = 0.005  # of a vocabulary: added tokens that hardly occur


def present(facts: Facts) -> Iterator[Finding]:
    """Every model is here, or can be had, and there is room for it."""
    for model in facts.models.values():
        yield _presence(model, _users(facts.profiles, model.name)[0], facts)
    soon = {name for profile in facts.profiles if profile.autostart for name in profile.files}
    needed = sum(download.size or 0 for name, download in facts.downloads.items() if name in soon)
    if needed > facts.disk_free:
        what = f"the models to download take {_size(needed)}, the disk has {_size(facts.disk_free)} left"
        yield Finding(Severity.ERROR, "models", what, "the download would fail", "free some disk space")
    elif needed:
        what = f"{_size(needed)} to download, {_size(facts.disk_free)} free on the disk"
        yield Finding(Severity.FINE, "models", what)


def _presence(model: ModelOnDisk, user: str, facts: Facts) -> Finding:
    if model.folder is not None and not model.missing:
        return Finding(Severity.FINE, "models", f"{model.name} is here, {_size(model.weight_bytes)}")
    if model.local:
        lacks = f"{model.name} lacks {', '.join(model.missing)}"
        what = lacks if model.folder else f"there is no {model.name}"
        do = f"correct the path in the profile {user}, or put the model there"
        return Finding(Severity.ERROR, "models", what, f"the worker of {user} fails at its start", do)
    if model.folder is not None:
        what = f"{model.name} is only partly downloaded: {', '.join(model.missing)} is missing"
        why = "the first start downloads the rest and takes longer"
        return Finding(Severity.WARNING, "models", what, why, f"draftd pull {user}")
    return _absence(model, user, facts)


def _absence(model: ModelOnDisk, user: str, facts: Facts) -> Finding:
    download = facts.downloads[model.name]
    if download.refused:
        what = f"{model.name}: {download.refused}"
        do = f"correct the name in the profile {user}"
        return Finding(Severity.ERROR, "models", what, "it cannot be downloaded", do)
    size = _size(download.size) if download.size else "size unknown, as the hub does not answer"
    what = f"{model.name} is not downloaded ({size})"
    why = f"the first start of {user} downloads it, while requests wait"
    return Finding(Severity.NOTE, "models", what, why, f"draftd pull {user}")


def known_types(facts: Facts) -> Iterator[Finding]:
    """The installed mlx-lm can load every model."""
    for model in facts.models.values():
        if model.config.model_type in facts.unsupported:
            what = (
                f"the installed mlx-lm does not know the model type {model.config.model_type} ({model.name})"
            )
            why = f"workers fail at their start: {', '.join(_users(facts.profiles, model.name))}"
            do = "update mlx-lm within 0.32, or choose another model"
            yield Finding(Severity.ERROR, "models", what, why, do)


def able_to_draft(facts: Facts) -> Iterator[Finding]:
    """What will draft for each profile. None wants to draft with a model that is known to be unfit for it."""
    drafting = [profile for profile in facts.profiles if profile.all_drafters]
    for model in facts.models.values():
        users = ", ".join(_users(drafting, model.name))
        if users and (refusal := NEVER_DRAFTED.get(model.config.model_type or "")):
            what = f"{model.name} ({model.config.model_type}) cannot draft: {refusal}"
            yield Finding(Severity.ERROR, "drafting", what, UNDRAFTED, without_drafts(users))
    told: dict[str, list[str]] = {}
    for profile in facts.profiles:
        if not profile.command:
            told.setdefault(what_drafts(profile, facts.models), []).append(profile.name)
    for words, names in told.items():
        yield Finding(Severity.FINE, "drafting", f"{', '.join(names)}: {words}")


def _users(profiles: Iterable[Profile], model: str) -> list[str]:
    return [profile.name for profile in profiles if model in profile.files]


def one_vocabulary(facts: Facts) -> Iterator[Finding]:
    """Target and draft model mean the same by the same token ids."""
    for pair in facts.vocabularies:
        yield _compared(pair)


def _compared(pair: Vocabularies) -> Finding:
    both = f"{pair.draft} and {pair.target}"
    if pair.differing is None:
        what = f"the tokenizers of {both} cannot be compared"
        why = "drafts of another vocabulary are all refused"
        return Finding(Severity.NOTE, "drafting", what, why, "draftd test shows the acceptance")
    if pair.differing == 0:
        return Finding(Severity.FINE, "drafting", f"{both} have one vocabulary of {pair.size} tokens")
    what = f"{pair.differing} of {pair.size} tokens mean something else to {both}"
    if pair.differing <= MAX_DIFFERING * pair.size:
        return Finding(Severity.NOTE, "drafting", what, "drafts with these few tokens are refused", "nothing")
    why = "nearly every draft is refused: slower than no drafting"
    return Finding(Severity.ERROR, "drafting", what, why, "choose a draft model of the target's own family")


def memory(facts: Facts) -> Iterator[Finding]:
    """What starts by itself fits; weights only, since contexts come on top."""
    ours = {profile.name: profile for profile in facts.profiles if not profile.command}
    starting = [group.host for group in groups(ours, share=facts.share) if group.autostart]
    known = [size for profile in starting if (size := _weights(profile, facts)) is not None]
    if not known:
        return
    total = sum(known)
    many = "1 worker starts by itself" if len(known) == 1 else f"{len(known)} workers start by themselves"
    what = f"{many}, with {_size(total)} of weights; the memory is {_size(facts.memory_total)}"
    saved, shared = _sharing(facts)
    one = "'draftd up PROFILE' starts one only, or set autostart = false in the others"
    do = f"{shared}; or {one}" if saved else one
    if total > facts.memory_total:
        yield Finding(Severity.ERROR, "memory", what, "they do not fit: the system swaps, or ends them", do)
    elif total > facts.memory_share:
        why = f"models may take {_size(facts.memory_share)} on this machine, and contexts come on top"
        yield Finding(Severity.WARNING, "memory", what, why, do)
    elif facts.daemon is None and total > facts.memory_free:
        why = f"only {_size(facts.memory_free)} is free now: other programs would be swapped out"
        yield Finding(Severity.WARNING, "memory", what, why, do)
    elif saved > MIN_SAVING * facts.memory_total:
        why = f"they hold the same weights several times over: sharing would save {_size(saved)}"
        yield Finding(Severity.NOTE, "memory", what, why, do)
    else:
        little = f"; sharing engines would save {_size(saved)}" if saved else ""
        yield Finding(Severity.FINE, "memory", what + little)


def _weights(profile: Profile, facts: Facts) -> int | None:
    """Bytes that a profile's worker loads, by the hub's word for a model that is not here. None if nobody knows."""
    sizes = []
    for name in profile.models:
        download = facts.downloads.get(name)
        sizes.append(download.size if download else facts.models[name].weight_bytes or None)
    return None if None in sizes else sum(size or 0 for size in sizes)


def _sharing(facts: Facts) -> tuple[int, str]:
    """The bytes of weights that sharing engines would save, and how to do it."""
    apart = could_share(facts.profiles, share=facts.share)
    saved = sum((len(workers) - 1) * (_weights(workers[0].host, facts) or 0) for workers in apart)
    names = "; ".join(", ".join(name for worker in workers for name in worker.names) for workers in apart)
    return saved, f"share_engine = true in draftd.toml: one worker for {names} (saves {_size(saved)})"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def sharing(facts: Facts) -> Iterator[Finding]:
    """Who shares a worker where draftd has decided it, and why."""
    if facts.sharing:
        yield Finding(Severity.FINE, "sharing", facts.sharing)


CHECKS: tuple[Check, ...] = (present, known_types, able_to_draft, one_vocabulary, memory, sharing)
