"""The checks before a hook is placed, on stand-ins for mlx_lm's modules."""

import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from draftd.engine.hooks import UnfitError, expect


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


def test_importing_the_package_imports_no_mlx() -> None:
    generation = [f"generation.{name}" for name in ("acceptance", "estimates", "policy")]
    others = ("exits", "guard", "lifeline", "model_facts", "progress", "records", "request_context")
    modules = ", ".join(f"draftd.engine.{name}" for name in (*generation, *others))
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('mlx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
