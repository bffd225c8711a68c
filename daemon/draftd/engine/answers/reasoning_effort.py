"""How much a model is to think: `reasoning_effort` of a chat, as the model's own chat template takes it. Pure.

mlx_lm knows nothing of the field. Templates of models that have been taught several efforts name it themselves;
others can only switch thoughts off, which is the effort `none`. Where a template can do neither the request is
refused: a template leaves out what it does not know, without a word.
"""

from collections.abc import Mapping
from typing import Any

from draftd.engine.refusals import RefusedRequestError

FIELD, SWITCH = "reasoning_effort", "enable_thinking"
NONE = "none"


def template_arguments(given: Mapping[str, Any] | None, effort: Any, tokenizer: Any) -> dict[str, Any] | None:
    """Return the arguments for the template with the effort among them. `given` are the client's, which win.

    Raise RefusedRequestError if the template has no such effort. `tokenizer` is mlx_lm's TokenizerWrapper.
    """
    if effort is None:
        return None if given is None else dict(given)
    template = getattr(tokenizer, "chat_template", None)
    template = template if isinstance(template, str) else ""
    if FIELD in template:
        return {FIELD: effort, **(given or {})}
    if effort == NONE and SWITCH in template:
        return {SWITCH: False, **(given or {})}
    if effort == NONE and not getattr(tokenizer, "has_thinking", True):
        return None if given is None else dict(given)  # it never thinks
    able = f"; it can only be {NONE!r}" if SWITCH in template else ""
    raise RefusedRequestError(f"this model's chat template knows no {FIELD} {effort!r}{able}", param=FIELD)
