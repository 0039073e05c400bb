"""The tokens of a JSONPath, as in jsoncons: arithmetic, blanks anywhere, names that begin with digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

import jsonpath
from jsonpath import token as kinds
from jsonpath.lex import Lexer
from jsonpath.token import Token

#: Tokens that the library does not have
PLUS, MINUS, DIVIDE, MODULO, PARENT = "PLUS", "MINUS", "DIVIDE", "MODULO", "PARENT"

#: Tokens after which "-" is an operator, not a sign
_OPERANDS = {
    kinds.TOKEN_NAME,
    kinds.TOKEN_INT,
    kinds.TOKEN_FLOAT,
    kinds.TOKEN_RBRACKET,
    kinds.TOKEN_RPAREN,
    kinds.TOKEN_SELF,
    kinds.TOKEN_ROOT,
    kinds.TOKEN_TRUE,
    kinds.TOKEN_FALSE,
    kinds.TOKEN_NULL,
    kinds.TOKEN_SINGLE_QUOTE_STRING,
    kinds.TOKEN_DOUBLE_QUOTE_STRING,
}


class BadPath(ValueError):
    """The text is not a JSONPath, or one that would take too much: then a message says so."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


_NAME = r"[0-9A-Za-z_\u0080-\U0010FFFF]+"
_RULES = (
    (kinds.TOKEN_DOUBLE_QUOTE_STRING, r'"(?:[^"\\]|\\.)*"'),
    (kinds.TOKEN_SINGLE_QUOTE_STRING, r"'(?:[^'\\]|\\.)*'"),
    (kinds.TOKEN_RE_PATTERN, r"/(?:[^/\\]|\\.)*/i?"),
    (kinds.TOKEN_DDOT, r"\.\."),
    (kinds.TOKEN_DOT, r"\."),
    (kinds.TOKEN_FUNCTION, r"[a-z][a-z_0-9]*[ \t\r\n]*\("),
    (kinds.TOKEN_FLOAT, r"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)(?![0-9A-Za-z_])"),
    (kinds.TOKEN_INT, r"[0-9]+(?![0-9A-Za-z_])"),
    (kinds.TOKEN_TRUE, r"true\b"),
    (kinds.TOKEN_FALSE, r"false\b"),
    (kinds.TOKEN_NULL, r"null\b"),
    (kinds.TOKEN_NAME, _NAME),
    (kinds.TOKEN_AND, r"&&"),
    (kinds.TOKEN_OR, r"\|\|"),
    (kinds.TOKEN_EQ, r"=="),
    (kinds.TOKEN_NE, r"!="),
    (kinds.TOKEN_RE, r"=~"),
    (kinds.TOKEN_LE, r"<="),
    (kinds.TOKEN_GE, r">="),
    (kinds.TOKEN_LT, r"<"),
    (kinds.TOKEN_GT, r">"),
    (kinds.TOKEN_NOT, r"!"),
    (kinds.TOKEN_ROOT, r"\$"),
    (kinds.TOKEN_SELF, r"@"),
    (PARENT, r"\^"),
    (kinds.TOKEN_WILD, r"\*"),
    (kinds.TOKEN_FILTER, r"\?"),
    (kinds.TOKEN_LBRACKET, r"\["),
    (kinds.TOKEN_RBRACKET, r"\]"),
    (kinds.TOKEN_LPAREN, r"\("),
    (kinds.TOKEN_RPAREN, r"\)"),
    (kinds.TOKEN_COMMA, r","),
    (kinds.TOKEN_COLON, r":"),
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
                raise BadPath
            kind, text = found.lastgroup, found.group()
            if kind == kinds.TOKEN_RE_PATTERN and last != kinds.TOKEN_RE:
                kind, text = DIVIDE, "/"
            elif last in (kinds.TOKEN_DOT, kinds.TOKEN_DDOT) and kind not in (
                "BLANK",
                kinds.TOKEN_LBRACKET,
                kinds.TOKEN_WILD,
            ):
                # After a dot, everything that looks like a name is one: `.true`, `.10`, `.length`.
                named = re.compile(_NAME).match(path, position)
                if named is not None:
                    kind, text = kinds.TOKEN_NAME, named.group()
            elif kind == MINUS and last not in _OPERANDS:
                number = re.compile(r"-[0-9]+(?![0-9A-Za-z_.])").match(path, position)
                if number is not None:
                    kind, text = kinds.TOKEN_INT, number.group()
            start, position = position, position + len(text)
            if kind == "BLANK":
                continue
            last = kind
            yield from _pieces(kind, text, start, path)


def _pieces(kind: str, text: str, start: int, path: str) -> Iterator[Token]:
    if kind == kinds.TOKEN_FUNCTION:
        yield Token(kind, text[:-1].rstrip(), start, path)
        yield Token(kinds.TOKEN_LPAREN, "(", start + len(text) - 1, path)
    elif kind in (kinds.TOKEN_SINGLE_QUOTE_STRING, kinds.TOKEN_DOUBLE_QUOTE_STRING):
        yield Token(kind, text[1:-1], start, path)
    else:
        yield Token(kind, text, start, path)
