"""The state of a recurrent layer, and how its modules read a part of a pass again.

A module that is called with a `RecordingArraysCache` leaves there what it was called with. When several such
modules call each other (a decoder layer and its mixer), the innermost count: they are those that replace the state.
"""

import functools
import inspect
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import ArraysCache


@dataclass(frozen=True)
class Call:
    """What a module was called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def again(self, width: int, kept: int, masks: tuple[Any, Any] = (None, None)) -> None:
        """Call the module with the first `kept` tokens of a pass of `width`, whose axis is the second.

        The first of two `masks` is replaced by the other one, which is of `kept` tokens.
        """
        old, new = masks

        def part(value: Any) -> Any:
            if value is old and old is not None:
                return new
            has_tokens = isinstance(value, mx.array) and value.ndim > 1 and value.shape[1] == width
            return value[:, :kept] if has_tokens else value

        self.module(*map(part, self.args), **{name: part(value) for name, value in self.kwargs.items()})


class RecordingArraysCache(ArraysCache):  # type: ignore[misc]  # mlx_lm has no types
    """The arrays of a recurrent layer, how many tokens they stand for, and the calls that made them."""

    def __init__(self, size: int, left_padding: list[int] | None = None) -> None:
        super().__init__(size, left_padding)
        self.offset = 0
        self.calls: list[Call] | None = None  # None where nothing is recorded

    @classmethod
    def of(cls, cache: ArraysCache, position: int) -> Self:
        """Return the counterpart of mlx_lm's cache, which does not know how many tokens it has read."""
        new = cls(len(cache.cache))
        new.cache, new.offset = list(cache.cache), position
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the state without the calls, which lead to the model."""
        new = type(self).of(self, self.offset)
        memo[id(self)] = new
        return new


def observe(model: nn.Module) -> None:
    """Have all modules that take a cache say what they are called with, where it is a recurrent layer's."""
    for module in model.modules():
        kind: Any = type(module)
        if _takes_cache(kind):  # an observed one takes whatever comes, and so is not observed twice
            module.__class__ = _observed(kind)


def _takes_cache(kind: type[Any]) -> bool:
    return any("cache" in name for name in inspect.signature(kind.__call__).parameters)


@functools.cache
def _observed(kind: Any) -> Any:
    """Return a class of modules that behave as those of `kind`, and are observed."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls((*args, *kwargs.values()))
        if calls is None:
            return kind.__call__(self, *args, **kwargs)
        recorded = len(calls)
        result = kind.__call__(self, *args, **kwargs)
        if len(calls) == recorded:
            calls.append(Call(self, args, kwargs))
        return result

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _calls(arguments: tuple[Any, ...]) -> list[Call] | None:
    """Return where a call with these arguments is to be recorded."""
    caches = (argument for argument in arguments if isinstance(argument, RecordingArraysCache))
    cache = next(caches, None)
    return cache.calls if cache is not None else None
