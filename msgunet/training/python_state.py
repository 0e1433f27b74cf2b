"""What a step may change besides tensors on its device."""

import random
from collections import deque
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = bool | int | float | str
_Generator = np.random.Generator


class PythonState:
    """The attributes of the method and the networks, and the generators of random numbers on the CPU.

    In a captured step they would only change in its first run.
    """

    def __init__(self, watched: Iterable[Any]) -> None:
        self._objects: list[tuple[str, Any]] = []
        for each in watched:
            parts = each.named_modules() if isinstance(each, nn.Module) else [("", each)]
            self._objects += [(f"{type(part).__name__} {name}".strip(), part) for name, part in parts]
        self._before = self._read()
        values = [value for _, part in self._objects for value in vars(part).values()]
        owners = [*(part for _, part in self._objects), *filter(_is_helper, values)]
        self._plain = [
            (owner, {name: value for name, value in vars(owner).items() if isinstance(value, _PLAIN)})
            for owner in owners
        ]
        self._generators = [(value, value.bit_generator.state) for value in values if isinstance(value, _Generator)]
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def _read(self) -> list[dict[str, Any]]:
        return [{name: _token(value) for name, value in vars(part).items()} for _, part in self._objects]

    def changed(self) -> str | None:
        """Return what has changed, or None."""
        for (label, _), before, after in zip(self._objects, self._before, self._read(), strict=True):
            for name in (*before, *after):
                if before.get(name) != after.get(name):
                    return f"a step changes the attribute {name} of {label}"
        _, keys, *place = np.random.get_state()
        _, keys_before, *place_before = self._random[1]
        drawn = place != place_before or not np.array_equal(keys, keys_before)
        if drawn or random.getstate() != self._random[0]:
            return "a step draws random numbers from random or NumPy"
        if not torch.equal(torch.get_rng_state(), self._random[2]):
            return "a step draws random numbers on the CPU"
        return None

    def restore(self) -> None:
        """Set numbers, texts and the generators to their values before."""
        for owner, before in self._plain:
            for name, value in before.items():
                if vars(owner).get(name) != value:
                    setattr(owner, name, value)
        for generator, state in self._generators:
            generator.bit_generator.state = state
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        torch.set_rng_state(self._random[2])


def _is_helper(value: Any) -> bool:
    """Return whether a value is an object of a class with attributes. Modules are watched by themselves."""
    return hasattr(value, "__dict__") and not isinstance(value, Tensor | nn.Module | type | FunctionType | MethodType)


def _token(value: Any, inside: bool = True) -> Any:
    """Return what to compare: numbers and texts by value, tensors by identity, collections by their members.

    Of other objects, these are their attributes, but not those of the attributes.
    """
    if isinstance(value, _PLAIN) or value is None:
        return value
    if isinstance(value, Tensor):
        return "tensor", id(value)
    if isinstance(value, dict):
        return "dict", [(key, _token(item)) for key, item in value.items() if isinstance(key, str)], len(value)
    if isinstance(value, list | tuple | set | deque):
        return "items", [_token(item) for item in value]
    if isinstance(value, _Generator):
        return "generator", str(value.bit_generator.state)
    if inside and _is_helper(value):
        return "object", [(name, _token(item, inside=False)) for name, item in vars(value).items()]
    return None
