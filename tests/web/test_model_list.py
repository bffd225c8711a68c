"""The bodies of /v1/models."""

from draftd.web import model_list
from draftd.web.model_list import Listed

KNOWN = Listed("b", ("gpt-4o", "claude-b"), 32768)
UNKNOWN = Listed("a")


def test_models_are_listed_in_the_order_given_with_what_is_known_of_them() -> None:
    same = {"object": "model", "created": 1700000000, "owned_by": "draftd"}
    assert model_list.models([KNOWN, UNKNOWN], 1700000000.9) == {
        "object": "list",
        "data": [
            {
                "id": "b",
                **same,
                "aliases": ["gpt-4o", "claude-b"],
                "context_length": 32768,
                "context_window": 32768,
                "max_model_len": 32768,
            },
            {"id": "a", **same, "aliases": []},
        ],
        "models": [],
    }


def test_a_model_has_its_own_name_whatever_it_was_asked_for() -> None:
    assert model_list.model(KNOWN, 1.0, "gpt-4o")["id"] == "b"


def test_anthropic_s_clients_are_told_of_each_name() -> None:
    told = model_list.messages_models([KNOWN, UNKNOWN], 1700000000.9)
    assert [(one["id"], one["max_input_tokens"]) for one in told["data"]] == [
        ("b", 32768),
        ("gpt-4o", 32768),
        ("claude-b", 32768),
        ("a", None),
    ]
    assert (told["first_id"], told["last_id"], told["has_more"]) == ("b", "a", False)
    assert told["data"][0]["created_at"] == "2023-11-14T22:13:20+00:00"


def test_a_list_of_none_has_no_ends() -> None:
    assert model_list.messages_models([], 0.0) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
