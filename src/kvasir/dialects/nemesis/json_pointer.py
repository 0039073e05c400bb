"""What version 0.3.0 did with JSON values: JSON Pointers, an order of all values, appending. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_ESCAPE = re.compile(r"~[01]")
_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]*")


class BadPointer(ValueError):
    """The text is not a JSON Pointer."""


class Mismatch(ValueError):
    """One value cannot be appended to the other."""


def parts_of(pointer: str) -> list[str]:
    """The parts of a JSON Pointer (RFC 6901). Raises `BadPointer`."""
    if not pointer:
        return []
    if pointer[0] != "/" or _BAD_ESCAPE.search(pointer):
        raise BadPointer(pointer)
    return [_ESCAPE.sub(lambda found: "~" if found[0] == "~0" else "/", part) for part in pointer[1:].split("/")]


def resolve(value: Any, parts: list[str]) -> Any:
    """The value that the parts lead to. Raises LookupError if there is none."""
    for part in parts:
        value = value[_step(value, part)]
    return value


def replaced(value: Any, parts: list[str], new: Any) -> Any:
    """The value with `new` where the parts lead; changes it. Raises LookupError if there is nothing to replace."""
    if not parts:
        return new
    container = resolve(value, parts[:-1])
    step = _step(container, parts[-1])
    container[step]  # raises if it does not exist
    container[step] = new
    return value


def _step(container: Any, part: str) -> str | int:
    if container.__class__ is dict:
        return part
    if container.__class__ is list and len(part) < 20 and _INDEX.fullmatch(part):
        return int(part)
    raise KeyError(part)


# -- order ----------------------------------------------------------------------------------------------------

_RANK: dict[type, int] = {type(None): 0, bool: 1, int: 2, float: 2, dict: 3, list: 4, str: 5}

#: Operator of KV_FIND: whether it holds, by the `order` of the stored value and the given one
OPERATORS: dict[str, Callable[[int], bool]] = {
    "==": lambda order: order == 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}


class Operand:
    """A value that many others are compared with: its objects are sorted once."""

    __slots__ = ("_sorted", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        #: Objects within it, by their identity, as arrays of their names and values
        self._sorted: dict[int, list[Any]] = {}

    def order(self, value: Any, spend: Callable[[int], None]) -> int:
        """-1, 0 or 1, as the value is less, equal or greater.

        null < booleans < numbers < objects < arrays < strings; arrays are compared item by item, and objects as arrays
        of their names and values, sorted by name. `spend` is told of what is sorted and compared, before it is.
        """
        todo = [(value, self._value)]
        while todo:
            left, right = todo.pop()
            rank = _RANK[left.__class__]
            other = _RANK[right.__class__]
            if rank != other:
                return -1 if rank < other else 1
            if rank in (3, 4):
                # The lengths decide if all else is equal. They come last, so they are pushed first.
                todo.append((len(left) - len(right), 0))
                if left and right:
                    todo += reversed(self._pairs(left, right, spend))
                continue
            if rank == 5:
                spend(min(len(left), len(right)) // 64)
            if left != right:
                return -1 if left < right else 1
        return 0

    def _pairs(self, left: Any, right: Any, spend: Callable[[int], None]) -> list[tuple[Any, Any]]:
        spend(len(left) + min(len(left), len(right)))
        if left.__class__ is dict:
            left = _sorted_parts(left)
            if (known := self._sorted.get(id(right))) is None:
                spend(len(right))
                known = self._sorted[id(right)] = _sorted_parts(right)
            right = known
        return list(zip(left, right, strict=False))


def _sorted_parts(value: dict[str, Any]) -> list[Any]:
    # Texts in the order of their characters are in the order of their bytes in UTF-8, too.
    return [part for name in sorted(value) for part in (name, value[name])]


# -- append ---------------------------------------------------------------------------------------------------


def appended(value: Any, addition: Any) -> Any:
    """KV_APPEND: strings and arrays are extended, an object gets the members it lacks. Raises `Mismatch`."""
    if value.__class__ is not addition.__class__ or addition.__class__ not in (str, list, dict):
        raise Mismatch
    if addition.__class__ is dict:
        return value | {name: item for name, item in addition.items() if name not in value}
    return value + addition
