"""Requests that are made from the OpenAPI document."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

EXAMPLES = settings().max_examples // 4  # of each operation


def ask_all(made: dict[str, Any], url: str) -> set[int]:
    """Ask each operation with what its schema allows, from one seed; returns the statuses that came."""
    statuses: set[int] = set()
    schema = schemathesis.openapi.from_dict(made)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        varied = operation.body or operation.path_parameters

        @seed(1)
        @settings(
            max_examples=EXAMPLES if varied else 2,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=url, timeout=10)
            statuses.add(response.status_code)
            case.validate_response(response, checks=[not_a_server_error])

        ask()
    return statuses
