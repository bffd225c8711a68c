"""No message is left out of a prompt because a template does not know its role."""

from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.answers.roles import check_roles
from draftd.engine.refusals import RefusedRequestError

QWEN = SimpleNamespace(
    chat_template="{% if message.role == 'user' or message.role == 'system' %}…{% endif %}"
)
GRANITE = SimpleNamespace(chat_template='{% if message["role"] == "document" %}…{% endif %}')
PROGRAM = SimpleNamespace(chat_template=None)


def messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


@pytest.mark.fault(171)
@pytest.mark.parametrize("role", ["human", "User", "user ", "", "ipython", "x" * 1000])
def test_a_role_that_the_template_does_not_name_is_refused_by_its_place(role: str) -> None:
    with pytest.raises(RefusedRequestError, match="must be one of system, user") as refused:
        check_roles(messages("user", role), QWEN)
    assert refused.value.param == "messages[1].role"
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("tokenizer", "role"),
    [(QWEN, "assistant"), (QWEN, "tool"), (GRANITE, "document"), (PROGRAM, "human")],
)
def test_a_role_that_is_usual_or_known_passes(tokenizer: Any, role: str) -> None:
    check_roles(messages(role), tokenizer)
