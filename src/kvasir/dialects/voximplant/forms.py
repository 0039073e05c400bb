"""Request -> its parameters as texts, from the query and a body that is urlencoded, multipart or JSON.

The official clients use all of these: Python urlencoded, Node (chunked), Go, PHP, Java and .NET multipart, the curl
examples of the reference the query and `{}` as JSON. Everything is bounded, since parsing takes time on the event loop.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote_to_bytes

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from kvasir import jsontext
from kvasir.dialects.http import JSON
from kvasir.dialects.voximplant.errors import ARGUMENTS, ApiError
from kvasir.dialects.voximplant.parameters import JSON_DEPTH, texts
from kvasir.jsontext import BYTE_ORDER_MARK

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

#: The longest method has ten parameters.
MAX_PARAMETERS = 64
#: A form up to this length is read in a millisecond, even if all its characters are escaped.
LIGHT_BYTES = 16_384
#: RFC 2046, 5.1.1
MAX_BOUNDARY_BYTES = 70
#: For a part or a urlencoded body; the Java client declares ISO-8859-1 for its parts.
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1"})

# The parser logs a warning with a piece of every malformed body. The caller hears of it, and logs hold no values.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_BROKEN_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
#: As a character: what has been read with it in front and encoded afterwards.
_BYTE_ORDER_MARK = BYTE_ORDER_MARK.decode()

_cut = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def content_type(declared: str | None) -> tuple[str, dict[str, str]]:
    """A Content-Type header as (media type, parameters); without one the body counts as urlencoded."""
    if declared is None or declared == URLENCODED:
        return URLENCODED, {}
    kind, options = parse_options_header(declared)
    return kind.decode("latin-1"), {name.decode("latin-1"): text.decode("latin-1") for name, text in options.items()}


def is_light(body: bytes, kind: str) -> bool:
    """Whether reading it is a matter of a millisecond or two."""
    return jsontext.is_light(body) if kind == JSON else len(body) <= LIGHT_BYTES


def read(body: bytes, text: str, kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """All parameters of a request, from its body and its query, with what `content_type` returned.

    Raises `ApiError` 101 for a malformed body and for a parameter given twice (unless query and body agree).
    """
    query = urlencoded(text) if text else {}
    body = body.removeprefix(BYTE_ORDER_MARK)
    if not body:
        return query
    if kind == URLENCODED:
        fields = urlencoded(_decode(body, options.get("charset", "utf-8")))
    elif kind == MULTIPART:
        fields = multipart(body, options.get("boundary", ""))
    elif kind == JSON:
        fields = json_object(body)
    else:
        raise _refused(f"the body must be {URLENCODED}, {MULTIPART} or {JSON}")
    if not query:
        return fields
    for name in query.keys() & fields.keys():
        if query[name] != fields[name]:
            raise _refused("the query and the body give a parameter different values", name)
    return query | fields


def urlencoded(text: str) -> dict[str, str]:
    """The fields of a query or a urlencoded body."""
    # Keys like "products:1" have it and every client encodes it; decoding it early changes nothing else.
    text = text.replace("+", " ").replace("%3A", ":")
    pieces = text.split("&", MAX_PARAMETERS)
    if len(pieces) > MAX_PARAMETERS:
        raise _too_many()
    fields: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition("=")
        # Most texts have nothing to decode, and this is on the path of every request.
        if "%" in piece:
            value = _unquoted(value)
            name = _unquoted(name).removeprefix(_BYTE_ORDER_MARK) if "%" in name else name
        if name in fields:
            raise _refused("a parameter is given twice", name)
        if name:
            fields[name] = value
    return fields


def _unquoted(text: str) -> str:
    if _BROKEN_PERCENT.search(text) is not None:  # or "50%2" and "50%252" would be the same
        raise _refused("a percent sign needs two hexadecimal digits behind it; % itself is written %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise _refused("a parameter is not UTF-8") from None


def json_object(body: bytes) -> dict[str, str]:
    """The fields of a JSON object, as texts."""
    decoded = jsontext.decode(body, JSON_DEPTH)
    if decoded.__class__ is not dict:
        raise _refused("the JSON body must be an object")
    if len(decoded) > MAX_PARAMETERS:
        raise _too_many()
    return texts([decoded], lambda: [_cut(body)])[0]


def multipart(body: bytes, boundary: str) -> dict[str, str]:
    """The fields of a multipart/form-data body."""
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise _refused(f"a multipart body needs a boundary of 1 to {MAX_BOUNDARY_BYTES} characters")
    parts = _Parts()
    try:
        MultipartParser(boundary, parts.callbacks()).write(body)  # type: ignore[arg-type]
    except FormParserError:
        raise _refused("the multipart body is malformed") from None
    if not parts.ended:
        raise _refused("the multipart body ends before its last boundary")
    return _unique(parts.fields)


class _Parts:
    """Collects what the parser reports."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.ended = False
        self._header: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header.clear,
            "on_header_field": lambda data, start, end: self._header.append(data[start:end]),
            "on_header_value": lambda data, start, end: self._header.append(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.fields) == MAX_PARAMETERS:
            raise _too_many()
        self._headers, self._data = {}, []

    def _end_header(self) -> None:
        # The parser gets the whole body at once, so name and value are one piece each; an empty value is none.
        name, *value = self._header
        self._headers[name.lower()] = b"".join(value)

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or not options.get(b"name"):
            raise _refused("each part of a multipart body needs Content-Disposition: form-data with a name")
        _, parameters = parse_options_header(self._headers.get(b"content-type"))
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        self.fields.append((_decode(options[b"name"]), _decode(b"".join(self._data), charset)))

    def _finish(self) -> None:
        self.ended = True


def _decode(text: bytes, charset: str = "utf-8") -> str:
    if charset != "utf-8" and charset.lower() not in CHARSETS:
        raise _refused("the charset must be UTF-8, US-ASCII or ISO-8859-1")
    try:
        return text.decode(charset)
    except UnicodeDecodeError:
        raise _refused(f"a parameter in the body is not {charset}") from None


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise _refused("a parameter is given twice", name)
        fields[name] = value
    return fields


def _too_many() -> ApiError:
    return _refused(f"there are more than {MAX_PARAMETERS} parameters")


def _refused(detail: str, field: str | None = None) -> ApiError:
    return ApiError(ARGUMENTS, field=field, detail=detail)
