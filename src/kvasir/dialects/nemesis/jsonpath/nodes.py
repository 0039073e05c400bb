"""The parts of a compiled JSONPath: steps, the nodes they lead to, and the expressions in filters.

Every node and every operation is paid for from the `Budget` of the evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jsonpath.filter import BaseExpression, FilterExpression, FilterExpressionLiteral
from jsonpath.match import JSONPathMatch
from jsonpath.path import JSONPath
from jsonpath.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath.selectors import NameSelector

from kvasir.dialects.nemesis.jsonpath import functions

# -- nodes and steps ------------------------------------------------------------------------------------------

SPENT = "budget"


class Match(JSONPathMatch):
    """A node that a step leads to. Its path is not rendered until it is needed."""

    __slots__ = ("key",)

    def __init__(self, parent: Match | None, key: str | int, obj: Any, root: Any, context: Mapping[str, Any]) -> None:
        context[SPENT].spend(1)
        self._filter_context = context
        self.parent = parent
        self.key = key
        self.obj = obj
        self.root = root

    def new_child(self, obj: object, key: int | str) -> Match:
        return Match(self, key, obj, self.root, self._filter_context)

    def add_child(self, *children: JSONPathMatch) -> None:
        """The library collects them; nothing here needs them."""


def steps_to(match: Match) -> tuple[str | int, ...]:
    """Names and indices from the root to a node."""
    steps = []
    node: Any = match
    while node.parent is not None:
        steps.append(node.key)
        node = node.parent
    return tuple(reversed(steps))


class Descent(JSONPathRecursiveDescentSegment):
    """`..` in pre-order, without recursion."""

    def resolve(self, nodes: Iterable[JSONPathMatch]) -> Iterable[JSONPathMatch]:
        for node in nodes:
            todo = [node]
            while todo:
                here = todo.pop()
                for selector in self.selectors:
                    yield from selector.resolve(here)
                todo += reversed([child for child in _children(here) if child.obj.__class__ in (dict, list)])


def _children(node: JSONPathMatch) -> list[JSONPathMatch]:
    value: Any = node.obj
    if value.__class__ is dict:
        return [node.new_child(child, name) for name, child in value.items()]
    if value.__class__ is list:
        return [node.new_child(child, index) for index, child in enumerate(value)]
    return []


class Parent(JSONPathSegment):
    """`^`"""

    def resolve(self, nodes: Iterable[JSONPathMatch]) -> Iterable[JSONPathMatch]:
        for node in nodes:
            if node.parent is not None:
                yield node.parent

    def resolve_async(self, nodes: Any) -> Any:
        raise NotImplementedError


class Name(NameSelector):
    """A member, an item by its index in digits, or the length of an array or string."""

    def resolve(self, node: JSONPathMatch) -> Iterable[JSONPathMatch]:
        value: Any = node.obj
        if value.__class__ is dict:
            if self.name in value:
                yield node.new_child(value[self.name], self.name)
        elif value.__class__ is list and self.name.isdecimal() and len(self.name) < 10:
            if int(self.name) < len(value):
                yield node.new_child(value[int(self.name)], int(self.name))
        elif self.name == "length" and (value.__class__ is str or (value.__class__ is list and value)):
            yield node.new_child(len(value), "length")


class Path(JSONPath):
    """A compiled path, or a sub-path within a filter."""

    def finditer(self, data: Any, *, filter_context: Any = None) -> Iterable[JSONPathMatch]:
        root = Match(None, "", data, (filter_context or {}).get("root", data), filter_context)
        matches: Iterable[JSONPathMatch] = [root]
        for segment in self.segments:
            matches = segment.resolve(matches)
        return matches


# -- expressions ----------------------------------------------------------------------------------------------


class Expression(BaseExpression):
    """Base of the expressions here: they evaluate to a JSON value, or None for a missing one."""

    async def evaluate_async(self, context: Any) -> object:
        raise NotImplementedError

    def children(self) -> list[BaseExpression]:
        return []

    def set_children(self, children: list[BaseExpression]) -> None:
        raise NotImplementedError


class Query(Expression):
    """`@…` or `$…` in a filter: the value, null if there is none, an array if the path may select several."""

    __slots__ = ("absolute", "multiple", "path")

    def __init__(self, path: Path, *, absolute: bool) -> None:
        super().__init__()
        self.path = path
        self.absolute = absolute
        self.multiple = not path.singular_query()

    def evaluate(self, context: Any) -> object:
        start = context.extra_context["root"] if self.absolute else context.current
        values = [match.obj for match in self.path.finditer(start, filter_context=context.extra_context)]
        if self.multiple:
            return values
        return values[0] if values else None


class Binary(Expression):
    __slots__ = ("left", "operator", "right")

    def __init__(self, left: BaseExpression, operator: str, right: BaseExpression) -> None:
        super().__init__()
        self.left, self.operator, self.right = left, operator, right

    def evaluate(self, context: Any) -> object:
        budget = context.extra_context[SPENT]
        budget.spend(1)
        left = self.left.evaluate(context)
        if self.operator == "&&" and not functions.truth(left):
            return False
        if self.operator == "||" and functions.truth(left):
            return left
        right = self.right.evaluate(context)
        if self.operator in ("&&", "||"):
            return right
        return functions.BINARY[self.operator](left, right, budget)


class Unary(Expression):
    __slots__ = ("operator", "right")

    def __init__(self, operator: str, right: BaseExpression) -> None:
        super().__init__()
        self.operator, self.right = operator, right

    def evaluate(self, context: Any) -> object:
        value = self.right.evaluate(context)
        if self.operator == "!":
            return not functions.truth(value)
        return -value if functions.is_number(value) else None  # type: ignore[operator]


class Call(Expression):
    __slots__ = ("arguments", "function")

    def __init__(self, function: Any, arguments: list[BaseExpression]) -> None:
        super().__init__()
        self.function = function
        self.arguments = arguments

    def evaluate(self, context: Any) -> object:
        budget = context.extra_context[SPENT]
        budget.spend(1)
        return self.function(budget, *[argument.evaluate(context) for argument in self.arguments])


class Onward(Expression):
    """A path into the result of a call: `tokenize(@.name, ' ')[0]`."""

    __slots__ = ("call", "path")

    def __init__(self, call: Call, path: Path) -> None:
        super().__init__()
        self.call, self.path = call, path

    def evaluate(self, context: Any) -> object:
        start = self.call.evaluate(context)
        values = [match.obj for match in self.path.finditer(start, filter_context=context.extra_context)]
        return values if not self.path.singular_query() else values[0] if values else None


class Value(FilterExpressionLiteral[Any]):
    """A number, or a compiled regular expression."""


class Condition(FilterExpression):
    """A filter as a whole, with jsoncons's idea of truth."""

    def evaluate(self, context: Any) -> bool:
        return functions.truth(self.expression.evaluate(context))

    def cacheable_nodes(self) -> bool:
        return False
