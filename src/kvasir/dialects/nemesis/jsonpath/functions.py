"""Operators and functions in JSONPath filters, as in jsoncons: applied to the wrong types they give null.

Pure, but for a stopwatch where regular expressions are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

import re2

#: Longest regular expression that is compiled
PATTERN_CHARACTERS = 1_000
#: Memory that RE2 may take for one: for its program, which is refused beyond some 10,900 instructions, and for what it
#: learns of texts, of which it forgets the rest.
PATTERN_BYTES = 2**18

#: What a step has, in nanoseconds of the processor, where a regular expression is looked for.
_STEP_NANOSECONDS = 2_000
#: And how many looks at an instruction: RE2 may have one at each for every character, which takes it ten nanoseconds.
_STEP_LOOKS = 200


class TooMuch(Exception):
    """An evaluation has spent its budget, or what the message says."""


class Budget:
    """The steps an evaluation may take: nodes visited, values compared, characters read (64 to a step).

    Where a regular expression is looked for, they are at least as many as the time says that it took: RE2 is linear,
    but some expressions take a hundred times as long as others of their size, in some texts.
    """

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Raises `TooMuch`."""
        self.left -= steps
        if self.left < 0:
            raise TooMuch

    def spend_on(self, value: Any) -> None:
        """Pay for reading a whole string, or every item of a container. Raises `TooMuch`."""
        if value.__class__ is str:
            self.spend(1 + len(value) // 64)
        elif value.__class__ is list or value.__class__ is dict:
            self.spend(1 + len(value))

    def afford(self, regex: Any, characters: int) -> None:
        """Raise `TooMuch` unless there is enough left for the worst that RE2 may take: nothing can interrupt it."""
        if characters * regex.programsize > self.left * _STEP_LOOKS:
            raise TooMuch

    def spend_since(self, began: int, least: int) -> None:
        """Pay for what this thread has done since `began`, by `thread_time_ns`. Raises `TooMuch`."""
        self.spend(max(least, (thread_time_ns() - began) // _STEP_NANOSECONDS))


def truth(value: Any) -> bool:
    """null, false, and the empty string, array and object are false; every number is true."""
    return value is not None and value is not False and not (value.__class__ in (str, list, dict) and not value)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return value.__class__ is int or value.__class__ is float


def number(text: str) -> int | float:
    """The number of a literal; an integer that does not fit 64 bits is a double."""
    try:
        return bounded(int(text)) if len(text) < 40 else float(text)
    except ValueError:
        return float(text)


def bounded(value: int | float) -> int | float:
    """The number, as a double if it does not fit 64 bits."""
    return float(value) if value.__class__ is int and not -(2**63) <= value < 2**64 else value


class TooLargePattern(ValueError):
    """A regular expression that RE2 refuses because its program would be too large."""


def pattern(text: str, ignore_case: bool) -> Any:
    """A compiled regular expression; None if it is invalid. Raises `TooLargePattern`.

    Nothing is kept here: the library itself keeps the 128 that were compiled last.
    """
    if len(text) > PATTERN_CHARACTERS:
        return None
    options = re2.Options()
    options.max_mem = PATTERN_BYTES
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(text, options)
    except re2.error as error:
        if "too large" in str(error):
            raise TooLargePattern from None
        return None


# -- operators ------------------------------------------------------------------------------------------------


def equal(a: Any, b: Any, budget: Budget) -> bool:
    """JSON equality; every pair of values is paid for. Raises `TooMuch`."""
    todo = [(a, b)]
    while todo:
        left, right = todo.pop()
        budget.spend_on(left)
        if left.__class__ is list and right.__class__ is list:
            if len(left) != len(right):
                return False
            todo += zip(left, right, strict=True)
        elif left.__class__ is dict and right.__class__ is dict:
            if left.keys() != right.keys():
                return False
            todo += [(value, right[name]) for name, value in left.items()]
        elif is_number(left) and is_number(right):
            if left != right:
                return False
        elif left.__class__ is not right.__class__ or left != right:
            return False
    return True


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Budget], bool]:
    def compare(a: Any, b: Any, budget: Budget) -> bool:
        if is_number(a) and is_number(b):
            return test(a, b)
        if a.__class__ is str and b.__class__ is str:
            budget.spend_on(a)
            return test(a, b)
        return False

    return compare


def _arithmetic(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Budget], Any]:
    def apply(a: Any, b: Any, _: Budget) -> Any:
        if not (is_number(a) and is_number(b)):
            return None
        try:
            result = compute(a, b)
        except (ArithmeticError, ValueError):
            return None
        return bounded(result) if math.isfinite(result) else None

    return apply


def _divide(a: Any, b: Any) -> Any:
    """Integers divide as integers, towards zero."""
    if a.__class__ is int and b.__class__ is int:
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    return a / b


def _remain(a: Any, b: Any) -> Any:
    return a - b * _divide(a, b) if a.__class__ is int and b.__class__ is int else math.fmod(a, b)


def _matches(text: Any, pattern: Any, budget: Budget) -> bool:
    if text.__class__ is not str or not hasattr(pattern, "search"):
        return False
    budget.afford(pattern, len(text))
    began = thread_time_ns()
    found = pattern.search(text) is not None
    budget.spend_since(began, 1 + len(text) // 64)
    return found


#: Each takes both operands and the budget.
BINARY: dict[str, Callable[[Any, Any, Budget], Any]] = {
    "==": equal,
    "!=": lambda a, b, budget: not equal(a, b, budget),
    "<": _ordered(lambda a, b: a < b),
    "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b),
    ">=": _ordered(lambda a, b: a >= b),
    "+": _arithmetic(lambda a, b: a + b),
    "-": _arithmetic(lambda a, b: a - b),
    "*": _arithmetic(lambda a, b: a * b),
    "/": _arithmetic(_divide),
    "%": _arithmetic(_remain),
    "=~": _matches,
}


# -- functions ------------------------------------------------------------------------------------------------


def _of_number(compute: Callable[[Any], Any]) -> Callable[..., Any]:
    def apply(_: Budget, value: Any) -> Any:
        try:
            return compute(value) if is_number(value) else None
        except (ArithmeticError, ValueError):  # of an infinite number, which a literal may be
            return None

    return apply


def _of_numbers(compute: Callable[[list[float]], Any]) -> Callable[..., Any]:
    def apply(budget: Budget, values: Any) -> Any:
        budget.spend_on(values)
        if values.__class__ is not list or not all(is_number(value) for value in values):
            return None
        try:
            result = compute([float(value) for value in values])
        except (ArithmeticError, ValueError):  # too large, or infinities that are none together
            return None
        return result if result is not None and math.isfinite(result) else None

    return apply


def _extreme(pick: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    """The greatest or least of numbers, or of strings."""

    def apply(budget: Budget, values: Any) -> Any:
        budget.spend_on(values)
        if values.__class__ is not list or not values:
            return None
        if all(is_number(value) for value in values) or all(value.__class__ is str for value in values):
            budget.spend(sum(len(value) // 64 for value in values if value.__class__ is str))
            return pick(values)
        return None

    return apply


def _contains(budget: Budget, whole: Any, part: Any) -> Any:
    budget.spend_on(whole)
    if whole.__class__ is list:
        return any(equal(item, part, budget) for item in whole)
    if whole.__class__ is str and part.__class__ is str:
        return part in whole
    return None


def _ends(budget: Budget, text: Any, end: Any) -> Any:
    budget.spend_on(end)
    return text.endswith(end) if text.__class__ is str and end.__class__ is str else None


def _starts(budget: Budget, text: Any, start: Any) -> Any:
    budget.spend_on(start)
    return text.startswith(start) if text.__class__ is str and start.__class__ is str else None


def _keys(budget: Budget, value: Any) -> Any:
    budget.spend_on(value)
    return list(value) if value.__class__ is dict else None


def _length(_: Budget, value: Any) -> Any:
    return len(value) if value.__class__ in (str, list, dict) else None


def _to_number(_: Budget, value: Any) -> Any:
    if is_number(value):
        return value
    if value.__class__ is not str or len(value) > 400:
        return None
    try:
        found = number(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _computed(budget: Budget, text: str) -> Any:
    """A regular expression that is not in the path but found in a value, compiled and paid for; None if there is none.

    To read one takes RE2 some ten microseconds a character at most, to compile it one an instruction.
    """
    budget.spend(16 * min(len(text), PATTERN_CHARACTERS))
    try:
        compiled = pattern(text, False)
    except TooLargePattern:
        budget.spend(1_000)  # what there was of it until it was too large
        return None
    if compiled is not None:
        budget.spend(compiled.programsize)
    return compiled


def _tokenize(budget: Budget, text: Any, regex: Any) -> Any:
    if text.__class__ is not str:
        return None
    if regex.__class__ is str:
        regex = _computed(budget, regex)
    if not hasattr(regex, "finditer"):
        return None
    budget.spend(1 + len(text) // 64)
    budget.afford(regex, len(text))
    pieces, start = [], 0
    began = thread_time_ns()
    for found in regex.finditer(text):
        # It may have read to the end of the text to find no longer one, for each of them.
        budget.spend_since(began, 1)
        pieces.append(text[start : found.start()])
        start = found.end()
        budget.afford(regex, len(text) - start)
        began = thread_time_ns()
    budget.spend_since(began, 0)
    return [*pieces, text[start:]]


#: Name: (function, fewest arguments, most arguments). Each takes the budget, then its arguments.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (_of_number(abs), 1, 1),
    "avg": (_of_numbers(lambda values: sum(values) / len(values) if values else None), 1, 1),
    "ceil": (_of_number(lambda value: float(math.ceil(value))), 1, 1),
    "contains": (_contains, 2, 2),
    "ends_with": (_ends, 2, 2),
    "floor": (_of_number(lambda value: float(math.floor(value))), 1, 1),
    "keys": (_keys, 1, 1),
    "length": (_length, 1, 1),
    "max": (_extreme(max), 1, 1),
    "min": (_extreme(min), 1, 1),
    "prod": (_of_numbers(lambda values: math.prod(values) if values else None), 1, 1),
    "starts_with": (_starts, 2, 2),
    "sum": (_of_numbers(math.fsum), 1, 1),
    "to_number": (_to_number, 1, 1),
    "tokenize": (_tokenize, 2, 2),
}
