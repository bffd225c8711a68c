"""Checks of the models: there, complete, able to draft, of one vocabulary, and small enough. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from draftd.ops.doctor.facts import Facts, Model, Vocabularies
from draftd.ops.doctor.findings import Check, Finding, Severity
from draftd.profiles import Profile
from draftd.sharing import could_share, groups

GPU_SHARE = 0.75  # of the memory: about what macOS lets the GPU have
WORTH_SAVING = 0.02  # of the memory
FEW = 0.005  # of a vocabulary: added tokens that hardly occur


def present(facts: Facts) -> Iterator[Finding]:
    """Every model is here, or can be had, and there is room for it."""
    absent = [model for model in facts.models.values() if not model.local and model.folder is None]
    for model in facts.models.values():
        yield _presence(model, _first_user(facts.profiles, model.name))
    needed = sum(model.size or 0 for model in absent)
    if needed > facts.disk_free:
        what = f"the models to download take {_size(needed)}, the disk has {_size(facts.disk_free)} left"
        yield Finding(Severity.ERROR, "models", what, "the download would fail", "free some of the disk")
    elif needed:
        what = f"{_size(needed)} to download, {_size(facts.disk_free)} free on the disk"
        yield Finding(Severity.FINE, "models", what)


def _presence(model: Model, user: str) -> Finding:
    pull = f"draftd pull {user}"
    if model.folder is not None and not model.missing:
        return Finding(Severity.FINE, "models", f"{model.name} is here, {_size(model.size)}")
    if model.local:
        what = (
            f"{model.name} lacks {', '.join(model.missing)}" if model.folder else f"there is no {model.name}"
        )
        do = f"correct the path in the profile {user}, or put the model there"
        return Finding(Severity.ERROR, "models", what, f"the worker of {user} fails at its start", do)
    if model.refused:
        do = f"correct the name in the profile {user}"
        return Finding(
            Severity.ERROR, "models", f"{model.name}: {model.refused}", "it cannot be downloaded", do
        )
    if model.folder is not None:
        what = f"{model.name} is downloaded in part: {', '.join(model.missing)} is missing"
        return Finding(
            Severity.WARNING, "models", what, "the first start downloads the rest and takes longer", pull
        )
    size = _size(model.size) if model.size else "size unknown, as the hub does not answer"
    why = f"the first start of {user} downloads it, while requests wait"
    return Finding(Severity.NOTE, "models", f"{model.name} is not downloaded ({size})", why, pull)


def _first_user(profiles: Iterable[Profile], model: str) -> str:
    return next((p.name for p in profiles if model in (p.model, p.draft_model, p.adapter_path)), "")


def able_to_draft(facts: Facts) -> Iterator[Finding]:
    """mlx_lm takes refused tokens back out of the cache, which not every kind of cache can do."""
    for model in facts.models.values():
        users = [p.name for p in facts.profiles if p.draft_model and model.name in (p.model, p.draft_model)]
        if users:
            yield from _drafting(model, ", ".join(users))


def _drafting(model: Model, users: str) -> Iterator[Finding]:
    if model.caches == "unsupported":
        what = f"the installed mlx-lm knows no model type {model.model_type} ({model.name})"
        do = "update mlx-lm within 0.32, or choose another model"
        yield Finding(Severity.ERROR, "drafting", what, f"workers fail at their start: {users}", do)
    if model.caches == "state":
        what = f"{model.name} ({model.model_type}) cannot draft: it keeps a state that cannot be taken back"
        do = f"remove draft_model from {users}, or choose a model with attention only"
        yield Finding(Severity.ERROR, "drafting", what, "every request ends in an error", do)
    if model.window:
        what = (
            f"{model.name} ({model.model_type}) remembers the last {model.window} tokens only, in some layers"
        )
        why = (
            "from there on mlx_lm cannot take refused draft tokens back: long answers may go wrong, unnoticed"
        )
        do = f"for long chats remove draft_model from {users}"
        yield Finding(Severity.WARNING, "drafting", what, why, do)


def one_vocabulary(facts: Facts) -> Iterator[Finding]:
    """Target and draft model mean the same by the same token numbers."""
    for pair in facts.vocabularies:
        yield _compared(pair)


def _compared(pair: Vocabularies) -> Finding:
    both = f"{pair.draft} and {pair.target}"
    if pair.differing is None:
        why = "drafts of another vocabulary are all refused"
        do = "draftd test shows the acceptance"
        return Finding(Severity.NOTE, "drafting", f"the tokenizers of {both} cannot be compared", why, do)
    if pair.differing == 0:
        return Finding(Severity.FINE, "drafting", f"{both} have one vocabulary of {pair.size} tokens")
    what = f"{pair.differing} of {pair.size} tokens mean something else to {both}"
    if pair.differing <= FEW * pair.size:
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
    what = (
        f"{len(known)} workers start by themselves, with {_size(total)} of weights; "
        f"the memory is {_size(facts.memory_total)}"
    )
    saved, shared = _sharing(facts)
    one = "'draftd up PROFILE' starts one only, or set autostart = false in the others"
    do = f"{shared}; or {one}" if saved else one
    if total > facts.memory_total:
        yield Finding(Severity.ERROR, "memory", what, "they do not fit: the system swaps, or ends them", do)
    elif total > GPU_SHARE * facts.memory_total:
        why = "macOS lets the GPU have about three quarters, and contexts come on top"
        yield Finding(Severity.WARNING, "memory", what, why, do)
    elif facts.daemon is None and total > facts.memory_free:
        why = f"only {_size(facts.memory_free)} is free now: other programs would be swapped out"
        yield Finding(Severity.WARNING, "memory", what, why, do)
    elif saved > WORTH_SAVING * facts.memory_total:
        why = f"they hold the same weights several times over: sharing would save {_size(saved)}"
        yield Finding(Severity.NOTE, "memory", what, why, do)
    else:
        little = f"; sharing engines would save {_size(saved)}" if saved else ""
        yield Finding(Severity.FINE, "memory", what + little)


def _weights(profile: Profile, facts: Facts) -> int | None:
    names = [name for name in (profile.model, profile.draft_model) if name]
    sizes = [facts.models[name].size if name in facts.models else None for name in names]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _sharing(facts: Facts) -> tuple[int, str]:
    """The bytes of weights that sharing engines would save, and how to do it."""
    apart = could_share(facts.profiles, share=facts.share)
    saved = sum((len(workers) - 1) * (_weights(workers[0].host, facts) or 0) for workers in apart)
    names = "; ".join(", ".join(name for worker in workers for name in worker.names) for workers in apart)
    return saved, f"share_engine = true in draftd.toml: one worker for {names} (saves {_size(saved)})"


def _size(size: int | None) -> str:
    if size is None:
        return "of unknown size"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


CHECKS: tuple[Check, ...] = (present, able_to_draft, one_vocabulary, memory)
