"""Asks the model hub how large a model is; and downloads it before its first use, as mlx_lm would do then.

The only module of ours that imports huggingface_hub. The daemon reads what is on disk with `draftd.hub`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import PurePath

from draftd.errors import DraftdError
from draftd.hub import is_local
from draftd.profiles import Profile

HUB_TIMEOUT = 5.0  # seconds
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


def names_at_hub(profiles: Iterable[Profile]) -> list[str]:
    """What must come from the hub: each name once, in order.

    A profile with a `command` of its own is left out: what its server makes of the model's name is up to it.
    """
    wanted = dict.fromkeys(name for profile in profiles for name in profile.files)
    return [name for name in wanted if not is_local(name)]


def size_at_hub(name: str) -> tuple[int | None, str]:
    """Bytes of weights to download, None if the hub does not answer; and why it has no such model, or ""."""
    from huggingface_hub import HfApi  # late: it takes most of a second
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=HUB_TIMEOUT)
    except (HFValidationError, RepositoryNotFoundError):
        return None, "the hub has no such model, or it is private"
    except Exception:  # whatever goes wrong on the way there only means that we do not know
        return None, ""
    files = [file for file in info.siblings or () if PurePath(file.rfilename).match("model*.safetensors")]
    return sum(file.size or 0 for file in files) or None, ""


def download(name: str) -> str:
    """Download `name`, or what is missing of it, with the hub's progress bars; returns the folder it is in.

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
        raise DraftdError(f"{name} is gated: accept its terms on the hub, then 'hf auth login'") from error
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


if __name__ == "__main__":  # by ssh, on another machine of a group
    try:
        print(download(sys.argv[1]))
    except DraftdError as error:
        sys.exit(str(error))
