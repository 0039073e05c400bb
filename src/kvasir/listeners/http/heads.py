"""What the head of a request says, in either version of HTTP, and what a head that cannot be taken is answered with."""

from __future__ import annotations

import re
import urllib.parse
from functools import lru_cache
from typing import NamedTuple

import msgspec

from kvasir.dialects.http import Response

#: The refusal of a head beyond the limits
LONG_HEAD = 431, "the head of the request is too long, or has too many lines"
NOT_ASCII = 400, "path and query must be ASCII: percent-encode the UTF-8 of other characters"

#: Headers by lower-case name
Headers = dict[str, str]

#: A percent sign that begins no encoding, and the lone surrogate that stands for it in a decoded path.
_BROKEN_PERCENT, _NO_TEXT = re.compile("%(?![0-9A-Fa-f]{2})"), "\udc25"

#: How many first lines of requests are remembered, and the longest.
KNOWN_LINES, KNOWN_LINE_BYTES = 4_096, 300
_METHODS = frozenset({"GET", "PUT", "POST", "DELETE"})


class Line(NamedTuple):
    """What the first line of a request says."""

    method: str
    #: As it came, percent-encoded
    raw_path: str
    path: str
    query: str

    @classmethod
    def of(cls, method: str, target: str) -> Line:
        """What a method and a target mean."""
        raw_path, _, query = target.partition("?")
        return cls(method, raw_path, decoded(raw_path) if "%" in raw_path else raw_path, query)


def decoded(path: str) -> str:
    """A percent-encoded path as `kvasir.dialects.http.Request.path` has it."""
    return urllib.parse.unquote(_BROKEN_PERCENT.sub(_NO_TEXT, path), errors="surrogateescape")


@lru_cache(KNOWN_LINES)
def plain_line(line: bytes) -> Line | None:
    """What the first line of a plain request says, as llhttp would find; None: let llhttp see."""
    method, _, rest = line.decode("latin-1").partition(" ")
    target, _, version = rest.partition(" ")
    plain = target[:1] == "/" and target.isascii() and target.isprintable()
    return Line.of(method, target) if plain and method in _METHODS and version == "HTTP/1.1" else None


def long_target(target_bytes: int) -> tuple[int, str]:
    """The refusal of a path and query beyond the limit."""
    return 414, f"path and query are longer than {target_bytes:,} bytes; send what is long, as many keys, in a body"


def refusal(status: int, message: str) -> Response:
    """The answer to a request that reaches no dialect."""
    body = {"code": "invalid", "message": message, "details": "Correct the request, then send it again."}
    return Response(status, msgspec.json.encode(body), "")


def join(name: str, former: str, value: str) -> str:
    """The values of two lines of one name (RFC 9110, section 5.3; RFC 6265, section 5.4)."""
    return former + ("; " if name == "cookie" else ", ") + value
