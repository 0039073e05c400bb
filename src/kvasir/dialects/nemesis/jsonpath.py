"""JSONPath as NemesisDB's clients know it: the jsoncons dialect (after Goessner), on top of `python-jsonpath`.

The library parses and walks; what jsoncons does otherwise is here: arithmetic, its functions, `^`, `.length`, quoted
names after a dot, blanks, `@` as a start, missing compares as null, truth, no duplicates. Every evaluation spends from
a `Budget`, and regular expressions run on RE2, whose time is linear, so that no path can hold up the server for long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonpath
from jsonpath.exceptions import JSONPathError, JSONPathSyntaxError
from jsonpath.filter import NIL, BaseExpression, FilterExpression, FilterExpressionLiteral
from jsonpath.lex import Lexer
from jsonpath.match import JSONPathMatch
from jsonpath.parse import Parser
from jsonpath.path import JSONPath
from jsonpath.segments import JSONPathChildSegment, JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath.selectors import Filter, JSONPathSelector, NameSelector, WildcardSelector
from jsonpath.stream import TokenStream
from jsonpath.token import (
    TOKEN_AND,
    TOKEN_COLON,
    TOKEN_COMMA,
    TOKEN_DDOT,
    TOKEN_DOT,
    TOKEN_DOUBLE_QUOTE_STRING,
    TOKEN_EOF,
    TOKEN_EQ,
    TOKEN_FALSE,
    TOKEN_FILTER,
    TOKEN_FLOAT,
    TOKEN_FUNCTION,
    TOKEN_GE,
    TOKEN_GT,
    TOKEN_INT,
    TOKEN_LBRACKET,
    TOKEN_LE,
    TOKEN_LPAREN,
    TOKEN_LT,
    TOKEN_NAME,
    TOKEN_NE,
    TOKEN_NOT,
    TOKEN_NULL,
    TOKEN_OR,
    TOKEN_RBRACKET,
    TOKEN_RE,
    TOKEN_RE_PATTERN,
    TOKEN_ROOT,
    TOKEN_RPAREN,
    TOKEN_SELF,
    TOKEN_SINGLE_QUOTE_STRING,
    TOKEN_TRUE,
    TOKEN_WILD,
    Token,
)

from kvasir.dialects.nemesis import pathfunctions
from kvasir.dialects.nemesis.pathfunctions import Budget, TooMuch

#: Longest path that is looked at.
PATH_CHARACTERS = 8_192

__all__ = ["PATH_CHARACTERS", "BadPath", "Budget", "Found", "TooMuch", "compile", "find", "replace"]

_PLUS, _MINUS, _DIVIDE, _MODULO, _PARENT = "PLUS", "MINUS", "DIVIDE", "MODULO", "PARENT"

#: Tokens after which an operator may follow, so that "-" is one and not a sign.
_OPERANDS = {
    TOKEN_NAME,
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_RBRACKET,
    TOKEN_RPAREN,
    TOKEN_SELF,
    TOKEN_ROOT,
    TOKEN_TRUE,
    TOKEN_FALSE,
    TOKEN_NULL,
    TOKEN_SINGLE_QUOTE_STRING,
    TOKEN_DOUBLE_QUOTE_STRING,
}


class BadPath(ValueError):
    """The text is no JSONPath."""


# -- tokens ---------------------------------------------------------------------------------------------------

_NAME = r"[0-9A-Za-z_\u0080-\U0010FFFF]+"
_RULES = (
    (TOKEN_DOUBLE_QUOTE_STRING, r'"(?:[^"\\]|\\.)*"'),
    (TOKEN_SINGLE_QUOTE_STRING, r"'(?:[^'\\]|\\.)*'"),
    (TOKEN_RE_PATTERN, r"/(?:[^/\\]|\\.)*/i?"),
    (TOKEN_DDOT, r"\.\."),
    (TOKEN_DOT, r"\."),
    (TOKEN_FUNCTION, r"[a-z][a-z_0-9]*[ \t\r\n]*\("),
    (TOKEN_FLOAT, r"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)(?![0-9A-Za-z_])"),
    (TOKEN_INT, r"[0-9]+(?![0-9A-Za-z_])"),
    (TOKEN_TRUE, r"true\b"),
    (TOKEN_FALSE, r"false\b"),
    (TOKEN_NULL, r"null\b"),
    (TOKEN_NAME, _NAME),
    (TOKEN_AND, r"&&"),
    (TOKEN_OR, r"\|\|"),
    (TOKEN_EQ, r"=="),
    (TOKEN_NE, r"!="),
    (TOKEN_RE, r"=~"),
    (TOKEN_LE, r"<="),
    (TOKEN_GE, r">="),
    (TOKEN_LT, r"<"),
    (TOKEN_GT, r">"),
    (TOKEN_NOT, r"!"),
    (TOKEN_ROOT, r"\$"),
    (TOKEN_SELF, r"@"),
    (_PARENT, r"\^"),
    (TOKEN_WILD, r"\*"),
    (TOKEN_FILTER, r"\?"),
    (TOKEN_LBRACKET, r"\["),
    (TOKEN_RBRACKET, r"\]"),
    (TOKEN_LPAREN, r"\("),
    (TOKEN_RPAREN, r"\)"),
    (TOKEN_COMMA, r","),
    (TOKEN_COLON, r":"),
    (_PLUS, r"\+"),
    (_MINUS, r"-"),
    (_DIVIDE, r"/"),
    (_MODULO, r"%"),
    ("BLANK", r"[ \t\r\n]+"),
)
_LEXER = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _RULES), re.DOTALL)


class _Lexer(Lexer):
    """Blanks are dropped; "/" begins a regular expression only after "=~"."""

    def __init__(self, *, env: jsonpath.JSONPathEnvironment) -> None:
        self.env = env

    def tokenize(self, path: str) -> Iterator[Token]:
        position = 0
        last = ""
        while position < len(path):
            found = _LEXER.match(path, position)
            if found is None or found.lastgroup is None:
                raise BadPath(path)
            kind, text = found.lastgroup, found.group()
            if kind == TOKEN_RE_PATTERN and last != TOKEN_RE:
                kind, text = _DIVIDE, "/"
            elif last in (TOKEN_DOT, TOKEN_DDOT) and kind not in ("BLANK", TOKEN_LBRACKET, TOKEN_WILD):
                # After a dot everything that looks like a name is one: `.true`, `.10`, `.length`.
                named = re.compile(_NAME).match(path, position)
                if named is not None:
                    kind, text = TOKEN_NAME, named.group()
            elif kind == _MINUS and last not in _OPERANDS:
                number = re.compile(r"-[0-9]+(?![0-9A-Za-z_.])").match(path, position)
                if number is not None:
                    kind, text = TOKEN_INT, number.group()
            start, position = position, position + len(text)
            if kind == "BLANK":
                continue
            last = kind
            yield from _pieces(kind, text, start, path)


def _pieces(kind: str, text: str, start: int, path: str) -> Iterator[Token]:
    if kind == TOKEN_FUNCTION:
        yield Token(kind, text[:-1].rstrip(), start, path)
        yield Token(TOKEN_LPAREN, "(", start + len(text) - 1, path)
    elif kind in (TOKEN_SINGLE_QUOTE_STRING, TOKEN_DOUBLE_QUOTE_STRING):
        yield Token(kind, text[1:-1], start, path)
    else:
        yield Token(kind, text, start, path)


# -- nodes ----------------------------------------------------------------------------------------------------

_SPENT = "budget"


class Match(JSONPathMatch):
    """A node on the way. It builds no path text until asked, and every one is paid for."""

    __slots__ = ("key",)

    def __init__(self, parent: Match | None, key: str | int, obj: Any, root: Any, context: Mapping[str, Any]) -> None:
        context[_SPENT].spend(1)
        self._filter_context = context
        self.parent = parent
        self.key = key
        self.obj = obj
        self.root = root

    def new_child(self, obj: object, key: int | str) -> Match:
        return Match(self, key, obj, self.root, self._filter_context)

    def add_child(self, *children: JSONPathMatch) -> None:
        """Nobody asks for children."""


def steps_to(match: Match) -> tuple[str | int, ...]:
    """Names and indices from the root to a node."""
    steps = []
    node: Any = match
    while node.parent is not None:
        steps.append(node.key)
        node = node.parent
    return tuple(reversed(steps))


class _Descent(JSONPathRecursiveDescentSegment):
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


class _Parent(JSONPathSegment):
    """`^`"""

    def resolve(self, nodes: Iterable[JSONPathMatch]) -> Iterable[JSONPathMatch]:
        for node in nodes:
            if node.parent is not None:
                yield node.parent

    def resolve_async(self, nodes: Any) -> Any:
        raise NotImplementedError


class _Name(NameSelector):
    """A member, an item by its index in digits, or the length of an array or a text."""

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


class _Expression(BaseExpression):
    """Base of the expressions here: evaluated to a JSON value, with None for what is missing."""

    async def evaluate_async(self, context: Any) -> object:
        raise NotImplementedError

    def children(self) -> list[BaseExpression]:
        return []

    def set_children(self, children: list[BaseExpression]) -> None:
        raise NotImplementedError


class _Query(_Expression):
    """`@…` or `$…` in a filter: the value, null for none, an array if the path may yield several."""

    __slots__ = ("absolute", "path", "several")

    def __init__(self, path: Path, *, absolute: bool) -> None:
        super().__init__()
        self.path = path
        self.absolute = absolute
        self.several = not path.singular_query()

    def evaluate(self, context: Any) -> object:
        start = context.extra_context["root"] if self.absolute else context.current
        values = [match.obj for match in self.path.finditer(start, filter_context=context.extra_context)]
        if self.several:
            return values
        return values[0] if values else None


class _Binary(_Expression):
    __slots__ = ("left", "operator", "right")

    def __init__(self, left: BaseExpression, operator: str, right: BaseExpression) -> None:
        super().__init__()
        self.left, self.operator, self.right = left, operator, right

    def evaluate(self, context: Any) -> object:
        budget = context.extra_context[_SPENT]
        budget.spend(1)
        left = self.left.evaluate(context)
        if self.operator == "&&" and not pathfunctions.truth(left):
            return False
        if self.operator == "||" and pathfunctions.truth(left):
            return left
        right = self.right.evaluate(context)
        if self.operator in ("&&", "||"):
            return right
        return pathfunctions.BINARY[self.operator](left, right, budget)


class _Unary(_Expression):
    __slots__ = ("operator", "right")

    def __init__(self, operator: str, right: BaseExpression) -> None:
        super().__init__()
        self.operator, self.right = operator, right

    def evaluate(self, context: Any) -> object:
        value = self.right.evaluate(context)
        if self.operator == "!":
            return not pathfunctions.truth(value)
        return -value if pathfunctions.is_number(value) else None  # type: ignore[operator]


class _Call(_Expression):
    __slots__ = ("arguments", "function")

    def __init__(self, function: Any, arguments: list[BaseExpression]) -> None:
        super().__init__()
        self.function = function
        self.arguments = arguments

    def evaluate(self, context: Any) -> object:
        budget = context.extra_context[_SPENT]
        budget.spend(1)
        return self.function(budget, *[argument.evaluate(context) for argument in self.arguments])


class _Onward(_Expression):
    """A path into what a call gave: `tokenize(@.name, ' ')[0]`."""

    __slots__ = ("call", "path")

    def __init__(self, call: _Call, path: Path) -> None:
        super().__init__()
        self.call, self.path = call, path

    def evaluate(self, context: Any) -> object:
        start = self.call.evaluate(context)
        values = [match.obj for match in self.path.finditer(start, filter_context=context.extra_context)]
        return values if not self.path.singular_query() else values[0] if values else None


class _Value(FilterExpressionLiteral[Any]):
    """A number, or a compiled regular expression."""


class _Condition(FilterExpression):
    """A filter as a whole: jsoncons's truth decides."""

    def evaluate(self, context: Any) -> bool:
        return pathfunctions.truth(self.expression.evaluate(context))

    def cacheable_nodes(self) -> bool:
        return False


# -- grammar --------------------------------------------------------------------------------------------------


class _Parser(Parser):
    """The library's parser, with jsoncons's operators and steps."""

    PRECEDENCE_PREFIX = 12
    PRECEDENCES = {  # noqa: RUF012  (the library's own way to set it)
        TOKEN_OR: 3,
        TOKEN_AND: 4,
        TOKEN_EQ: 5,
        TOKEN_NE: 5,
        TOKEN_LT: 6,
        TOKEN_LE: 6,
        TOKEN_GT: 6,
        TOKEN_GE: 6,
        _PLUS: 7,
        _MINUS: 7,
        TOKEN_WILD: 8,
        _DIVIDE: 8,
        _MODULO: 8,
        TOKEN_RE: 9,
    }
    BINARY_OPERATORS = {  # noqa: RUF012
        TOKEN_OR: "||",
        TOKEN_AND: "&&",
        TOKEN_EQ: "==",
        TOKEN_NE: "!=",
        TOKEN_LT: "<",
        TOKEN_LE: "<=",
        TOKEN_GT: ">",
        TOKEN_GE: ">=",
        _PLUS: "+",
        _MINUS: "-",
        TOKEN_WILD: "*",
        _DIVIDE: "/",
        _MODULO: "%",
        TOKEN_RE: "=~",
    }

    def __init__(self, *, env: jsonpath.JSONPathEnvironment) -> None:
        super().__init__(env=env)
        self.token_map = {
            TOKEN_DOUBLE_QUOTE_STRING: self.parse_string_literal,
            TOKEN_SINGLE_QUOTE_STRING: self.parse_string_literal,
            TOKEN_TRUE: self.parse_boolean,
            TOKEN_FALSE: self.parse_boolean,
            TOKEN_NULL: self.parse_nil,
            TOKEN_INT: self.parse_number,
            TOKEN_FLOAT: self.parse_number,
            TOKEN_FUNCTION: self.parse_function_extension,
            TOKEN_LPAREN: self.parse_grouped_expression,
            TOKEN_NOT: self.parse_prefix_expression,
            _MINUS: self.parse_prefix_expression,
            TOKEN_RE_PATTERN: self.parse_regex,
            TOKEN_ROOT: self.parse_absolute_query,
            TOKEN_SELF: self.parse_relative_query,
        }

    def parse(self, stream: TokenStream) -> Iterator[JSONPathSegment]:
        if stream.next().kind not in (TOKEN_ROOT, TOKEN_SELF):
            raise BadPath
        yield from self.parse_query(stream)
        if stream.current().kind != TOKEN_EOF:
            raise BadPath

    def parse_query(self, stream: TokenStream) -> Iterable[JSONPathSegment]:
        while True:
            token = stream.next()
            if token.kind == TOKEN_DOT:
                yield self._child(token, self.parse_shorthand_selector(stream))
            elif token.kind == TOKEN_DDOT:
                bracket = stream.current().kind == TOKEN_LBRACKET
                selectors = (
                    self.parse_bracketed_selection(stream) if bracket else [self.parse_shorthand_selector(stream)]
                )
                yield _Descent(env=self.env, token=token, selectors=tuple(selectors))
            elif token.kind == TOKEN_LBRACKET:
                stream.pos -= 1
                yield self._child(token, *self.parse_bracketed_selection(stream))
            elif token.kind == _PARENT:
                yield _Parent(env=self.env, token=token, selectors=())
            else:
                if token.kind != TOKEN_EOF:
                    stream.pos -= 1
                return

    def _child(self, token: Token, *selectors: JSONPathSelector) -> JSONPathSegment:
        return JSONPathChildSegment(env=self.env, token=token, selectors=selectors)

    def parse_shorthand_selector(self, stream: TokenStream) -> JSONPathSelector:
        token = stream.next()
        if token.kind == TOKEN_WILD:
            return WildcardSelector(env=self.env, token=token)
        if token.kind == TOKEN_NAME:
            return _Name(env=self.env, token=token, name=token.value)
        if token.kind in (TOKEN_SINGLE_QUOTE_STRING, TOKEN_DOUBLE_QUOTE_STRING):
            return _Name(env=self.env, token=token, name=self._decode_string_literal(token))
        raise BadPath

    def parse_bracketed_selection(self, stream: TokenStream) -> list[JSONPathSelector]:
        selectors = super().parse_bracketed_selection(stream)
        if any(getattr(getattr(selector, "slice", None), "step", None) == 0 for selector in selectors):
            raise BadPath
        return [
            _Name(env=self.env, token=selector.token, name=selector.name)
            if isinstance(selector, NameSelector)
            else selector
            for selector in selectors
        ]

    def parse_filter_selector(self, stream: TokenStream, *, keys: bool = False) -> Filter:  # noqa: ARG002
        token = stream.next()
        return Filter(env=self.env, token=token, expression=_Condition(self.parse_filter_expression(stream)))

    def parse_number(self, stream: TokenStream) -> BaseExpression:
        token = stream.next()
        return _Value(value=pathfunctions.number(token.value))

    def parse_nil(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return NIL

    def parse_regex(self, stream: TokenStream) -> BaseExpression:
        text = stream.next().value
        pattern = pathfunctions.pattern(text[1 : text.rindex("/")], text.endswith("i"))
        if pattern is None:
            raise BadPath
        return _Value(value=pattern)

    def parse_prefix_expression(self, stream: TokenStream) -> BaseExpression:
        operator = "!" if stream.next().kind == TOKEN_NOT else "-"
        return _Unary(operator, self.parse_filter_expression(stream, self.PRECEDENCE_PREFIX))

    def parse_infix_expression(self, stream: TokenStream, left: BaseExpression) -> BaseExpression:
        token = stream.next()
        # One above its own, so that operators of one rank take from the left.
        right = self.parse_filter_expression(stream, self.PRECEDENCES[token.kind] + 1)
        return _Binary(left, self.BINARY_OPERATORS[token.kind], right)

    def parse_grouped_expression(self, stream: TokenStream) -> BaseExpression:
        stream.eat(TOKEN_LPAREN)
        expression = self.parse_filter_expression(stream)
        stream.eat(TOKEN_RPAREN)
        return expression

    def parse_absolute_query(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return _Query(Path(env=self.env, segments=self.parse_query(stream)), absolute=True)

    def parse_relative_query(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return _Query(Path(env=self.env, segments=self.parse_query(stream)), absolute=False)

    def parse_function_extension(self, stream: TokenStream) -> BaseExpression:
        function, fewest, most = pathfunctions.FUNCTIONS.get(stream.next().value, (None, 0, 0))
        stream.eat(TOKEN_LPAREN)
        arguments: list[BaseExpression] = []
        while stream.current().kind != TOKEN_RPAREN:
            if arguments:
                stream.eat(TOKEN_COMMA)
            arguments.append(self.parse_filter_expression(stream))
        stream.eat(TOKEN_RPAREN)
        if function is None or not fewest <= len(arguments) <= most:
            raise BadPath
        call = _Call(function, arguments)
        if stream.current().kind in (TOKEN_DOT, TOKEN_DDOT, TOKEN_LBRACKET):
            return _Onward(call, Path(env=self.env, segments=self.parse_query(stream)))
        return call


class _Environment(jsonpath.JSONPathEnvironment):
    lexer_class = _Lexer
    parser_class = _Parser

    def __init__(self) -> None:
        super().__init__(filter_caching=False, well_typed=False, strict=True)


_ENVIRONMENT = _Environment()


# -- the use of it ----------------------------------------------------------------------------------------------


class Found:
    """A node that a path selects."""

    __slots__ = ("steps", "value")

    def __init__(self, steps: tuple[str | int, ...], value: Any) -> None:
        self.steps = steps
        self.value = value

    @property
    def path(self) -> str:
        """Its normalised path, such as `$['address'][0]`."""
        return "$" + "".join(
            f"[{step}]" if step.__class__ is int else f"['{_escaped(str(step))}']" for step in self.steps
        )


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "\\'")


@lru_cache(maxsize=256)
def compile(path: str) -> Path | BaseExpression:
    """A path, or the expression of a call at the top, ready for use. Raises `BadPath`."""
    if len(path) > PATH_CHARACTERS:
        raise BadPath(path[:100])
    try:
        stream = TokenStream(_ENVIRONMENT.lexer.tokenize(path))
        if stream.current().kind == TOKEN_FUNCTION:
            call = _ENVIRONMENT.parser.parse_function_extension(stream)
            if stream.current().kind != TOKEN_EOF:
                raise BadPath(path)
            return call
        return Path(env=_ENVIRONMENT, segments=_ENVIRONMENT.parser.parse(stream))
    except (JSONPathError, JSONPathSyntaxError, RecursionError, IndexError, ValueError):
        raise BadPath(path[:100]) from None


class _Context:
    """What an expression at the top is evaluated in."""

    __slots__ = ("current", "extra_context")

    def __init__(self, value: Any, budget: Budget) -> None:
        self.current = value
        self.extra_context = {_SPENT: budget, "root": value}


def find(path: Path | BaseExpression, value: Any, budget: Budget) -> list[Found]:
    """The nodes of a value that a path selects, each once, in the order they are met. Raises `TooMuch`."""
    context = _Context(value, budget)
    try:
        if not isinstance(path, Path):
            return [Found((), path.evaluate(context))]  # type: ignore[arg-type]
        found: dict[tuple[str | int, ...], Found] = {}
        for match in path.finditer(value, filter_context=context.extra_context):
            steps = steps_to(match)  # type: ignore[arg-type]
            budget.spend(len(steps))
            found.setdefault(steps, Found(steps, match.obj))
        return list(found.values())
    except RecursionError:
        raise TooMuch from None


def replace(path: Path | BaseExpression, value: Any, new: Any, budget: Budget) -> tuple[Any, int]:
    """(the value with `new` at every node selected, how many there were). Never creates a node. Raises `TooMuch`."""
    if not isinstance(path, Path):
        return value, 0
    found = find(path, value, budget)
    count = 0
    # Deepest first, so that a replaced container does not swallow the nodes within it.
    for node in sorted(found, key=lambda node: -len(node.steps)):
        if not node.steps:
            value = new
        elif not _put(value, node.steps, new):
            continue
        count += 1
    return value, count


def _put(value: Any, steps: tuple[str | int, ...], new: Any) -> bool:
    for step in steps[:-1]:
        value = value[step]
    last = steps[-1]
    if value.__class__ is list and last == "length":
        return False
    if value.__class__ is str:
        return False
    value[last] = new
    return True
