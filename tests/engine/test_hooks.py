"""The checks before a hook is placed, on stand-ins for mlx_lm's modules."""

import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from draftd.engine import hooks
from draftd.engine.generation import entry
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


def unfit() -> None:
    raise UnfitError("not what it was")


@pytest.mark.parametrize(
    ("fit", "parts"),
    [
        ({"loop", "acceptance", "progress"}, {"tick", "report", "own_loop"}),
        ({"acceptance", "progress"}, {"tick", "report"}),
        ({"progress"}, {"tick"}),
        (set(), None),
    ],
)
def test_speculative_decoding_is_wrapped_once_with_the_parts_that_fit(
    monkeypatch: pytest.MonkeyPatch, fit: set[str], parts: set[str] | None
) -> None:
    placing = {name: ((lambda: None) if name in fit else unfit, "something") for name in hooks.STEP_PARTS}
    monkeypatch.setattr(hooks, "HOOKS", placing)
    wrapped = Wrapped(monkeypatch)
    assert hooks.place_all() == {
        name: hooks.PLACED if name in fit else "not what it was" for name in hooks.STEP_PARTS
    }
    assert wrapped.parts == ([] if parts is None else [parts])


def test_if_it_cannot_be_wrapped_every_part_of_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = {name: (lambda: None, "something") for name in ("guard", *hooks.STEP_PARTS)}
    monkeypatch.setattr(hooks, "HOOKS", placing)
    Wrapped(monkeypatch, by=helper)
    reasons = hooks.place_all()
    assert reasons.pop("guard") == hooks.PLACED
    assert set(reasons) == set(hooks.STEP_PARTS)
    assert all(reason.startswith("TypeError: ") for reason in reasons.values())


class Wrapped:
    """Stands for the wrapper around mlx_lm's function, and notes with which parts it was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, by: Any = None) -> None:
        self.parts: list[set[str]] = []
        module = stand_in(speculative_generate_step=helper)
        monkeypatch.setattr(hooks, "_generate_module", lambda: module)
        monkeypatch.setattr(entry, "SpeculativeStep", by or self.wrap)

    def wrap(self, step: Any, *, tick: Any, report: Any, own_loop: bool, **_: Any) -> Any:
        assert step is helper
        self.parts.append(
            {name for name, part in {"tick": tick, "report": report, "own_loop": own_loop}.items() if part}
        )
        return step


def test_importing_the_package_imports_no_mlx() -> None:
    generation = [f"generation.{name}" for name in ("acceptance", "estimates", "policy")]
    others = ("exits", "guard", "lifeline", "model_facts", "progress", "records", "request_context")
    modules = ", ".join(f"draftd.engine.{name}" for name in (*generation, *others))
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('mlx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
