"""The tokens of a JSONPath, as in jsoncons: arithmetic, blanks anywhere, names that begin with digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

import jsonpath
from jsonpath.lex import Lexer
from jsonpath.token import (
    TOKEN_AND,
    TOKEN_COLON,
    TOKEN_COMMA,
    TOKEN_DDOT,
    TOKEN_DOT,
    TOKEN_DOUBLE_QUOTE_STRING,
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

#: Tokens that the library does not have
PLUS, MINUS, DIVIDE, MODULO, PARENT = "PLUS", "MINUS", "DIVIDE", "MODULO", "PARENT"

#: Tokens after which "-" is an operator, not a sign
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
    """The text is not a JSONPath."""


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
    (PARENT, r"\^"),
    (TOKEN_WILD, r"\*"),
    (TOKEN_FILTER, r"\?"),
    (TOKEN_LBRACKET, r"\["),
    (TOKEN_RBRACKET, r"\]"),
    (TOKEN_LPAREN, r"\("),
    (TOKEN_RPAREN, r"\)"),
    (TOKEN_COMMA, r","),
    (TOKEN_COLON, r":"),
    (PLUS, r"\+"),
    (MINUS, r"-"),
    (DIVIDE, r"/"),
    (MODULO, r"%"),
    ("BLANK", r"[ \t\r\n]+"),
)
_LEXER = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _RULES), re.DOTALL)


class PathLexer(Lexer):
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
                kind, text = DIVIDE, "/"
            elif last in (TOKEN_DOT, TOKEN_DDOT) and kind not in ("BLANK", TOKEN_LBRACKET, TOKEN_WILD):
                # After a dot, everything that looks like a name is one: `.true`, `.10`, `.length`.
                named = re.compile(_NAME).match(path, position)
                if named is not None:
                    kind, text = TOKEN_NAME, named.group()
            elif kind == MINUS and last not in _OPERANDS:
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
