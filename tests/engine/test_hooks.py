"""The checks before a hook is placed, on stand-ins for mlx_lm's modules."""

import inspect
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from draftd.engine import hooks
from draftd.engine.expectations import UnfitError, expect
from draftd.protocol import RECORD_PREFIX


def helper(first: int, second: int = 0) -> int:
    return first + second


def uses_helper() -> int:
    return helper(1)


def stand_in(**names: Any) -> ModuleType:
    module = ModuleType("library.module")
    vars(module).update(names)
    return module


def test_what_is_expected_is_returned() -> None:
    module = stand_in(helper=helper, caller=uses_helper)
    assert expect(module, "helper", "first", "second", caller="caller") is helper


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (stand_in(caller=uses_helper), "there is no library.module.helper"),
        (stand_in(helper="text", caller=uses_helper), "there is no library.module.helper"),
        (stand_in(helper=len, caller=uses_helper), "library.module.helper takes no first, second"),
        (stand_in(helper=helper), "caller does not use library.module.helper"),
        (stand_in(helper=helper, caller=inspect.signature), "caller does not use library.module.helper"),
    ],
)
def test_what_differs_is_named(module: ModuleType, reason: str) -> None:
    with pytest.raises(UnfitError, match=f"^{reason}$"):
        expect(module, "helper", "first", "second", caller="caller")


def unfit() -> None:
    raise UnfitError("not what it was")


def broken() -> None:
    raise TypeError("no hook at all")


def test_a_hook_that_does_not_fit_leaves_the_others_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = {"first": unfit, "second": broken, "third": lambda: None}
    monkeypatch.setattr(hooks, "HOOKS", {name: (place, "something") for name, place in placing.items()})
    reasons = {"first": "not what it was", "second": "TypeError: no hook at all", "third": hooks.PLACED}
    assert hooks.place_all() == reasons


@pytest.mark.real
@pytest.mark.parametrize(("missing", "accounting"), [("serving", False), ("guard", True)])
def test_what_a_worker_lacks_is_said_and_counting_is_a_part_of_serving(
    missing: str, accounting: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks.announce(dict.fromkeys(hooks.HOOKS, hooks.PLACED) | {missing: "it is another one"})
    said, record = capfd.readouterr().err.splitlines()
    assert said == f"draftd-engine: {hooks.HOOKS[missing][1]}: it is another one"
    assert json.loads(record.removeprefix(RECORD_PREFIX))["accounting"] is accounting


PLACED_HERE = """
from mlx_lm import server
from draftd.engine import hooks
{change}
print(hooks.place_all()["serving"], getattr(server.ResponseGenerator, "_serve_single", None))
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("", "placed"),
        (
            "del server.ResponseGenerator._serve_single",
            "there is no mlx_lm.server.ResponseGenerator._serve_single",
        ),
        ("server.Response = lambda text, token: None", "mlx_lm.server.Response takes no logprob"),
        (
            "server.ResponseGenerator._tokenize = lambda self, request: None",
            "mlx_lm.server.ResponseGenerator._tokenize takes no tokenizer",
        ),
        (
            "server.ResponseGenerator._generate = lambda self: None",
            "_generate does not use mlx_lm.server.ResponseGenerator._serve_single",
        ),
    ],
)
def test_serving_is_placed_where_all_that_it_uses_is_there(change: str, says: str) -> None:
    code = PLACED_HERE.format(change=change)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(says)
    assert ("_place_serving" in done.stdout) is (says == "placed"), (
        "mlx_lm's own stays where ours is not placed"
    )


def test_importing_the_package_imports_no_mlx() -> None:
    generation = [f"generation.{name}" for name in ("acceptance", "drafters.lookup", "estimates", "policy")]
    others = (
        *(
            "channel",
            "exits",
            "guard",
            "lifeline",
            "model_facts",
            "own_models",
            "progress",
            "records",
            "release",
        ),
        "request_context",
    )
    modules = ", ".join(f"draftd.engine.{name}" for name in (*generation, *others))
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('mlx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
