"""What mlx_lm has to be like for a hook to fit, looked at before anything is replaced."""

import inspect
from typing import Any

_NO_CODE = (lambda: None).__code__


class UnfitError(Exception):
    """mlx_lm is not what a hook was written for. The text says what differs."""


def expect(owner: Any, name: str, *parameters: str, caller: str | None = None) -> Any:
    """Return the callable `owner.name` if it takes the parameters by name and `owner.caller` looks it up."""
    where = f"{getattr(owner, '__module__', None) or ''}.{owner.__name__}.{name}".lstrip(".")
    found = getattr(owner, name, None)
    if not callable(found):
        raise UnfitError(f"there is no {where}")
    known = inspect.signature(found).parameters
    if missing := [parameter for parameter in parameters if parameter not in known]:
        raise UnfitError(f"{where} takes no {', '.join(missing)}")
    if caller and name not in getattr(getattr(owner, caller, None), "__code__", _NO_CODE).co_names:
        raise UnfitError(f"{caller} does not use {where}")
    return found


def model_provider(server: Any) -> Any:
    """Return the class that holds the models, by the names that we use."""
    provider = expect(server, "ModelProvider", caller="main")
    if not {"model", "draft_model"} <= set(provider.reset.__code__.co_names):
        raise UnfitError("mlx_lm.server.ModelProvider holds no model and draft_model")
    return provider
