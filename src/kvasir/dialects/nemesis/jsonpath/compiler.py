"""JSONPath as NemesisDB's clients know it: the jsoncons dialect (after Goessner), on top of `python-jsonpath`.

The library parses and walks; here is what jsoncons does differently: arithmetic, its functions, `^`, `.length`, quoted
names after a dot, blanks, `@` at the start, missing values that compare as null, truth, no duplicates. Every evaluation
has a `Budget`, and regular expressions run on RE2 in linear time, so that no path can hold up the server for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import jsonpath
from jsonpath import token as kinds
from jsonpath.exceptions import JSONPathError, JSONPathSyntaxError
from jsonpath.filter import NIL, BaseExpression, StringLiteral
from jsonpath.parse import Parser
from jsonpath.segments import JSONPathChildSegment, JSONPathSegment
from jsonpath.selectors import Filter, IndexSelector, JSONPathSelector, NameSelector, WildcardSelector
from jsonpath.stream import TokenStream
from jsonpath.token import Token

from kvasir.dialects.nemesis.jsonpath import functions
from kvasir.dialects.nemesis.jsonpath.functions import Budget, TooMuch
from kvasir.dialects.nemesis.jsonpath.nodes import (
    SPENT,
    Binary,
    Call,
    Condition,
    Descent,
    Name,
    Onward,
    Parent,
    Path,
    Query,
    Unary,
    Value,
    steps_to,
)
from kvasir.dialects.nemesis.jsonpath.tokens import DIVIDE, MINUS, MODULO, PARENT, PLUS, BadPath, PathLexer

#: Longest path that is compiled
PATH_CHARACTERS = 8_192
#: Size of the programs that RE2 makes of all regular expressions of a path: a thousand take a millisecond to make.
PATH_INSTRUCTIONS = 20_000
#: Paths that are kept, and what each may have at most. What RE2 learns of texts stays with a path: some 130 KB for each
#: regular expression, of which there are no more than a handful to so few instructions.
_KEPT, _KEPT_CHARACTERS, _KEPT_INSTRUCTIONS = 128, 256, 64

__all__ = ["PATH_CHARACTERS", "BadPath", "Budget", "Node", "TooMuch", "compile", "find", "replace"]


# -- grammar --------------------------------------------------------------------------------------------------


class _Tokens(TokenStream):
    """The tokens of a path, and how large its regular expressions are together."""

    instructions = 0

    def regex(self, text: str, *, ignore_case: bool) -> Any:
        """A regular expression of the path, compiled; None if it is invalid. Raises `BadPath` if there is too much."""
        try:
            compiled = functions.pattern(text, ignore_case)
        except functions.TooLargePattern:
            raise _too_many_instructions() from None
        if compiled is not None:
            self.instructions += compiled.programsize
            if self.instructions > PATH_INSTRUCTIONS:
                raise _too_many_instructions()
        return compiled


def _too_many_instructions() -> BadPath:
    return BadPath(
        f"the regular expressions of the path are too large: {PATH_INSTRUCTIONS:,} instructions of RE2 are allowed,"
        " half of them in each; have fewer expressions, fewer repetitions like {30}, or smaller classes than \\pL"
    )


class _Parser(Parser):
    """The library's parser, with jsoncons's operators and steps."""

    PRECEDENCE_PREFIX = 12
    PRECEDENCES = {  # noqa: RUF012  (how the library sets it)
        kinds.TOKEN_OR: 3,
        kinds.TOKEN_AND: 4,
        kinds.TOKEN_EQ: 5,
        kinds.TOKEN_NE: 5,
        kinds.TOKEN_LT: 6,
        kinds.TOKEN_LE: 6,
        kinds.TOKEN_GT: 6,
        kinds.TOKEN_GE: 6,
        PLUS: 7,
        MINUS: 7,
        kinds.TOKEN_WILD: 8,
        DIVIDE: 8,
        MODULO: 8,
        kinds.TOKEN_RE: 9,
    }
    BINARY_OPERATORS = {  # noqa: RUF012
        kinds.TOKEN_OR: "||",
        kinds.TOKEN_AND: "&&",
        kinds.TOKEN_EQ: "==",
        kinds.TOKEN_NE: "!=",
        kinds.TOKEN_LT: "<",
        kinds.TOKEN_LE: "<=",
        kinds.TOKEN_GT: ">",
        kinds.TOKEN_GE: ">=",
        PLUS: "+",
        MINUS: "-",
        kinds.TOKEN_WILD: "*",
        DIVIDE: "/",
        MODULO: "%",
        kinds.TOKEN_RE: "=~",
    }

    def __init__(self, *, env: jsonpath.JSONPathEnvironment) -> None:
        super().__init__(env=env)
        self.token_map = {
            kinds.TOKEN_DOUBLE_QUOTE_STRING: self.parse_string_literal,
            kinds.TOKEN_SINGLE_QUOTE_STRING: self.parse_string_literal,
            kinds.TOKEN_TRUE: self.parse_boolean,
            kinds.TOKEN_FALSE: self.parse_boolean,
            kinds.TOKEN_NULL: self.parse_nil,
            kinds.TOKEN_INT: self.parse_number,
            kinds.TOKEN_FLOAT: self.parse_number,
            kinds.TOKEN_FUNCTION: self.parse_function_extension,
            kinds.TOKEN_LPAREN: self.parse_grouped_expression,
            kinds.TOKEN_NOT: self.parse_prefix_expression,
            MINUS: self.parse_prefix_expression,
            kinds.TOKEN_RE_PATTERN: self.parse_regex,
            kinds.TOKEN_ROOT: self.parse_absolute_query,
            kinds.TOKEN_SELF: self.parse_relative_query,
        }

    def parse(self, stream: TokenStream) -> Iterator[JSONPathSegment]:
        if stream.next().kind not in (kinds.TOKEN_ROOT, kinds.TOKEN_SELF):
            raise BadPath
        yield from self.parse_query(stream)
        if stream.current().kind != kinds.TOKEN_EOF:
            raise BadPath

    def parse_query(self, stream: TokenStream) -> Iterable[JSONPathSegment]:
        while True:
            token = stream.next()
            if token.kind == kinds.TOKEN_DOT:
                yield self._child(token, self.parse_shorthand_selector(stream))
            elif token.kind == kinds.TOKEN_DDOT:
                bracket = stream.current().kind == kinds.TOKEN_LBRACKET
                selectors = (
                    self.parse_bracketed_selection(stream) if bracket else [self.parse_shorthand_selector(stream)]
                )
                yield Descent(env=self.env, token=token, selectors=tuple(selectors))
            elif token.kind == kinds.TOKEN_LBRACKET:
                stream.pos -= 1
                yield self._child(token, *self.parse_bracketed_selection(stream))
            elif token.kind == PARENT:
                yield Parent(env=self.env, token=token, selectors=())
            else:
                if token.kind != kinds.TOKEN_EOF:
                    stream.pos -= 1
                return

    def _child(self, token: Token, *selectors: JSONPathSelector) -> JSONPathSegment:
        return JSONPathChildSegment(env=self.env, token=token, selectors=selectors)

    def parse_shorthand_selector(self, stream: TokenStream) -> JSONPathSelector:
        token = stream.next()
        if token.kind == kinds.TOKEN_WILD:
            return WildcardSelector(env=self.env, token=token)
        if token.kind == kinds.TOKEN_NAME:
            return Name(env=self.env, token=token, name=token.value)
        if token.kind in (kinds.TOKEN_SINGLE_QUOTE_STRING, kinds.TOKEN_DOUBLE_QUOTE_STRING):
            return Name(env=self.env, token=token, name=self._decode_string_literal(token))
        raise BadPath

    def parse_bracketed_selection(self, stream: TokenStream) -> list[JSONPathSelector]:
        selectors = super().parse_bracketed_selection(stream)
        if any(getattr(getattr(selector, "slice", None), "step", None) == 0 for selector in selectors):
            raise BadPath
        return [
            Name(env=self.env, token=selector.token, name=selector.name)
            if isinstance(selector, NameSelector)
            else selector
            for selector in selectors
        ]

    def parse_slice(self, stream: TokenStream) -> Any:
        """A slice; or an index, which the library takes for a slice if one without a start follows: [1,::2]."""
        token = stream.current()
        if token.kind == kinds.TOKEN_INT and stream.peek().kind != kinds.TOKEN_COLON:
            stream.next()
            return IndexSelector(env=self.env, token=token, index=int(token.value))
        return super().parse_slice(stream)

    def parse_filter_selector(self, stream: TokenStream, *, keys: bool = False) -> Filter:  # noqa: ARG002
        token = stream.next()
        return Filter(env=self.env, token=token, expression=Condition(self.parse_filter_expression(stream)))

    def parse_number(self, stream: TokenStream) -> BaseExpression:
        token = stream.next()
        return Value(value=functions.number(token.value))

    def parse_nil(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return NIL

    def parse_regex(self, stream: TokenStream) -> BaseExpression:
        text = stream.next().value
        pattern = cast("_Tokens", stream).regex(text[1 : text.rindex("/")], ignore_case=text.endswith("i"))
        if pattern is None:
            raise BadPath
        return Value(value=pattern)

    def parse_prefix_expression(self, stream: TokenStream) -> BaseExpression:
        operator = "!" if stream.next().kind == kinds.TOKEN_NOT else "-"
        return Unary(operator, self.parse_filter_expression(stream, self.PRECEDENCE_PREFIX))

    def parse_infix_expression(self, stream: TokenStream, left: BaseExpression) -> BaseExpression:
        token = stream.next()
        # One above its own, so that operators of one precedence associate to the left.
        right = self.parse_filter_expression(stream, self.PRECEDENCES[token.kind] + 1)
        return Binary(left, self.BINARY_OPERATORS[token.kind], right)

    def parse_grouped_expression(self, stream: TokenStream) -> BaseExpression:
        stream.eat(kinds.TOKEN_LPAREN)
        expression = self.parse_filter_expression(stream)
        stream.eat(kinds.TOKEN_RPAREN)
        return expression

    def parse_absolute_query(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return Query(Path(env=self.env, segments=self.parse_query(stream)), absolute=True)

    def parse_relative_query(self, stream: TokenStream) -> BaseExpression:
        stream.next()
        return Query(Path(env=self.env, segments=self.parse_query(stream)), absolute=False)

    def parse_function_extension(self, stream: TokenStream) -> BaseExpression:
        name = stream.next().value
        function, min_arguments, max_arguments = functions.FUNCTIONS.get(name, (None, 0, 0))
        stream.eat(kinds.TOKEN_LPAREN)
        arguments: list[BaseExpression] = []
        while stream.current().kind != kinds.TOKEN_RPAREN:
            if arguments:
                stream.eat(kinds.TOKEN_COMMA)
            arguments.append(self.parse_filter_expression(stream))
        stream.eat(kinds.TOKEN_RPAREN)
        if function is None or not min_arguments <= len(arguments) <= max_arguments:
            raise BadPath
        if name == "tokenize" and isinstance(arguments[1], StringLiteral):
            arguments[1] = Value(value=cast("_Tokens", stream).regex(arguments[1].value, ignore_case=False))
        call = Call(function, arguments)
        if stream.current().kind in (kinds.TOKEN_DOT, kinds.TOKEN_DDOT, kinds.TOKEN_LBRACKET):
            return Onward(call, Path(env=self.env, segments=self.parse_query(stream)))
        return call


class _Environment(jsonpath.JSONPathEnvironment):
    lexer_class = PathLexer
    parser_class = _Parser

    def __init__(self) -> None:
        super().__init__(filter_caching=False, well_typed=False, strict=True)


_ENVIRONMENT = _Environment()


# -- compile, find, replace --------------------------------------------------------------------------------------------


class Node:
    """A node that a path selects."""

    __slots__ = ("steps", "value")

    def __init__(self, steps: tuple[str | int, ...], value: Any) -> None:
        self.steps = steps
        self.value = value

    @property
    def path(self) -> str:
        """Its normalized path, such as `$['address'][0]`."""
        return "$" + "".join(
            f"[{step}]" if step.__class__ is int else f"['{_escaped(str(step))}']" for step in self.steps
        )

    @property
    def path_characters(self) -> int:
        """The length of its normalized path, which may be that of the value, without making it."""
        length = 1
        for step in self.steps:
            name = str(step)
            length += len(name) + (2 if step.__class__ is int else 4 + name.count("\\") + name.count("'"))
        return length


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "\\'")


Compiled = Path | BaseExpression

#: By their texts, oldest first
_kept: dict[str, Compiled] = {}


def compile(path: str) -> Compiled:
    """A path, or the expression of a function call at the top, compiled. Raises `BadPath`."""
    if (known := _kept.get(path)) is not None:
        return known
    if len(path) > PATH_CHARACTERS:
        raise BadPath(f"the path is longer than {PATH_CHARACTERS:,} characters")
    try:
        stream = _Tokens(_ENVIRONMENT.lexer.tokenize(path))
        compiled = _parsed(stream)
    except BadPath:
        raise
    except (JSONPathError, JSONPathSyntaxError, RecursionError, IndexError, ValueError):
        raise BadPath from None
    if len(path) <= _KEPT_CHARACTERS and stream.instructions <= _KEPT_INSTRUCTIONS:
        if len(_kept) >= _KEPT:
            del _kept[next(iter(_kept))]
        _kept[path] = compiled
    return compiled


def _parsed(stream: _Tokens) -> Compiled:
    if stream.current().kind != kinds.TOKEN_FUNCTION:
        return Path(env=_ENVIRONMENT, segments=_ENVIRONMENT.parser.parse(stream))
    call = _ENVIRONMENT.parser.parse_function_extension(stream)
    if stream.current().kind != kinds.TOKEN_EOF:
        raise BadPath
    return call


class _Context:
    """What an expression at the top is evaluated with."""

    __slots__ = ("current", "extra_context")

    def __init__(self, value: Any, budget: Budget) -> None:
        self.current = value
        self.extra_context = {SPENT: budget, "root": value}


def find(path: Compiled, value: Any, budget: Budget) -> list[Node]:
    """The nodes of a value that a path selects, each once, in the order of the walk. Raises `TooMuch`."""
    context = _Context(value, budget)
    try:
        if not isinstance(path, Path):
            return [Node((), path.evaluate(context))]  # type: ignore[arg-type]
        found: dict[tuple[str | int, ...], Node] = {}
        for match in path.finditer(value, filter_context=context.extra_context):
            steps = steps_to(match)  # type: ignore[arg-type]
            budget.spend(len(steps))
            found.setdefault(steps, Node(steps, match.obj))
        return list(found.values())
    except RecursionError:
        raise TooMuch(
            "the path is too long or nested too deeply for a value; have fewer steps or parentheses"
        ) from None


def replace(path: Compiled, value: Any, new: Any, budget: Budget) -> tuple[Any, int]:
    """(the value with `new` at every node selected, number of these nodes). Never creates a node. Raises `TooMuch`."""
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
