"""The roles of a chat's messages, as far as the model's own chat template knows them. Pure.

Many templates leave out a message whose role they do not know, without a word; others write any role into the
prompt, which means nothing to a model that has not been taught it. So a role beyond the usual ones must stand in
the template.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from draftd.engine.refusals import RefusedRequestError

USUAL = ("system", "user", "assistant", "tool")
MAX_SHOWN = 40  # characters of a role that the client is shown


def check_roles(messages: Iterable[Mapping[str, Any]], tokenizer: Any) -> None:
    """Raise RefusedRequestError for a role that the chat template does not name.

    `tokenizer` is mlx_lm's TokenizerWrapper. Of a template that is a program nothing is known.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return
    for place, message in enumerate(messages):
        role = message["role"]
        if role not in USUAL and not any(f"{quote}{role}{quote}" in template for quote in "'\""):
            where = f"messages[{place}].role"
            raise RefusedRequestError(
                f"{where} must be one of {', '.join(USUAL)}: this model's chat template knows no role "
                f"{role[:MAX_SHOWN]!r}",
                param=where,
            )
