"""Downloads the models of profiles before their first use, just the files that mlx_lm would fetch then."""

from __future__ import annotations

from collections.abc import Iterable

from draftd.errors import DraftdError
from draftd.hub import is_local
from draftd.profiles import Profile

# mlx_lm.utils.DEFAULT_ALLOW_PATTERNS of 0.32; importing it would load mlx, which takes seconds.
PATTERNS = (
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "*.txt",
    "*.jsonl",
    "*.jinja",
)


def names(profiles: Iterable[Profile]) -> list[str]:
    """What must come from the hub: each name once, in order. Pure but for a look whether a folder exists.

    A profile with a `command` of its own is left out: what its server makes of the model's name is not ours.
    """
    ours = [profile for profile in profiles if not profile.command]
    models = [m for p in ours for m in (p.model, p.draft_model, p.adapter_path) if m is not None]
    return [model for model in dict.fromkeys(models) if not is_local(model)]


def pull(name: str) -> str:
    """Download `name`, or what is missing of it, with the hub's progress bars; the folder it is in.

    Raises DraftdError.
    """
    from huggingface_hub import snapshot_download  # late: it takes most of a second
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return str(snapshot_download(name, allow_patterns=list(PATTERNS)))
    except GatedRepoError as error:
        raise DraftdError(f"{name} asks for consent: give it on the hub, then 'hf auth login'") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DraftdError(f"the hub has no model {name}, or it is private ('hf auth login')") from error
    except LocalEntryNotFoundError as error:
        why = error.__cause__ or error
        raise DraftdError(
            f"{name}: the hub cannot be reached ({why}), and it is not downloaded yet; "
            "'draftd up --demo' needs no download"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise DraftdError(f"{name} cannot be downloaded: {error}") from error
