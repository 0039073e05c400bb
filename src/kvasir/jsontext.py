"""JSON texts: validate whole, keep as they came, compare. Pure; the one place that knows how strict Kvasir is.

Strict means RFC 8259 in UTF-8, no duplicate members, numbers that fit a double (integers of any sign up to the
interpreter's digit limit), strings without lone surrogates, nesting bounded.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from kvasir.errors import Invalid, TooLarge

#: U+FEFF in UTF-8, which some editors and frameworks put in front of a text. A parser may ignore it (RFC 8259,
#: section 8.1): who takes in a body, a message or a document removes it first.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

_decoder = msgspec.json.Decoder()

#: A text up to this length, or with no more strings, containers and commas than that, is decoded in a millisecond or
#: two: what is decoded beside the event loop is the rest. (The slowest texts are arrays of empty arrays.)
LIGHT_BYTES, LIGHT_TOKENS = 4_096, 2_000
#: One that is longer counts as none of these without a look, and so does one that begins with so many: to count them
#: takes a millisecond a megabyte.
HEAVY_BYTES, SAMPLE_BYTES = 262_144, 16_384

#: One that has no end ends with the text: were it none, its escaped quotes would be tried one by one, each to the end.
_STRING = re.compile(rb'"(?>[^"\\]+|\\.)*+(?:"|\\?\Z)', re.DOTALL)
#: Some strings and what stands before each, or what stands behind the last.
_STRINGS = re.compile(rb'(?:[^"]*+%b){1,500}|[^"]++' % _STRING.pattern, re.DOTALL)


def is_light(text: bytes) -> bool:
    """Whether decoding it is a matter of a millisecond or two."""
    if len(text) <= LIGHT_BYTES:
        return True
    if len(text) > HEAVY_BYTES or _tokens(text[:SAMPLE_BYTES]) > LIGHT_TOKENS:
        return False
    return len(text) <= SAMPLE_BYTES or _tokens(text) <= LIGHT_TOKENS


def is_sparse(text: bytes) -> bool:
    """Whether there is so little in it that nothing is saved by decoding it in parts, however long it is."""
    return len(text) <= LIGHT_BYTES or _tokens(text) <= LIGHT_TOKENS


def _tokens(text: bytes) -> int:
    # In one pass, which takes half the time of counting each of them.
    return len(text) - len(text.translate(None, b'",[{'))


def decode(text: bytes, max_depth: int, max_containers: int | None = None) -> Any:
    """The value of a strictly valid JSON text. Raises `Invalid` and says what is wrong and where.

    Raises `TooLarge`, before anything is decoded, if the text has more arrays and objects than `max_containers`.
    """
    if max_containers is not None and len(text) > max_containers:
        check_containers(text, max_containers)
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except UnicodeDecodeError:
        raise Invalid("the JSON text is not UTF-8") from None
    except msgspec.MsgspecError as error:
        raise Invalid(f"invalid JSON: {_say(error, text)}") from None
    if value.__class__ is dict or value.__class__ is list:
        _check_structure(text, value, max_depth)
    return value


def check_containers(text: bytes, max_containers: int) -> None:
    """Raises `TooLarge` if a JSON text has more arrays and objects than that: each takes a hundred bytes of memory."""
    if text.count(b"[") + text.count(b"{") > max_containers:
        # A piece at a time, so that other threads have their turn, and no further than needed.
        containers = 0
        for piece in _STRINGS.finditer(text):
            containers += _brackets(_STRING.sub(b"", piece[0]))
            if containers > max_containers:
                message = f"the JSON text has more than the {max_containers:,} arrays and objects that are allowed"
                raise TooLarge(message)


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


#: What the parser calls numbers that are JSON, but more than Kvasir keeps.
_NUMBERS = {
    "Number out of range": "a number is out of range: a double goes to 1.8e308",
    "Integer value out of range": "an integer is out of range: it may have 4,300 digits",
}


def _say(error: Exception, text: bytes) -> str:
    if text.startswith(BYTE_ORDER_MARK):
        return "the text begins with a byte order mark; leave it out"
    if text.startswith(_UTF_16):
        return "the text begins with the byte order mark of UTF-16; send UTF-8"
    said = str(error).removeprefix("JSON is malformed: ")
    for mark, meaning in _NUMBERS.items():
        if said.startswith(mark):
            return said.replace(mark, meaning)
    if said != "Input data was truncated":
        return said
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "the text ends too early"
    # The strict parser looked for the other half and met the end of the string.
    return "a \\u escape in a string is half of a surrogate pair"


def _too_deep(max_depth: int) -> Invalid:
    return Invalid(f"the JSON text is nested deeper than {max_depth} levels")


def _check_structure(text: bytes, value: Any, max_depth: int) -> None:
    """Depth and duplicate members, both only looked at closely when a cheap count cannot rule them out."""
    if text.count(b"[") + text.count(b"{") > max_depth and _depth_exceeds(value, max_depth):
        raise _too_deep(max_depth)
    # Every member has one colon. If the decoded members are as many as the colons, none was lost as a duplicate;
    # more colons may also be text inside strings, which only the slow parser can tell.
    colons = text.count(b":")
    if colons == (len(value) if value.__class__ is dict else 0):
        return  # nor are there any objects inside, as in a list of keys
    if colons != _members(value):
        json.loads(text, object_pairs_hook=_refuse_duplicates, parse_float=str, parse_int=str)


def _members(value: Any) -> int:
    count = 0
    todo = [value]
    while todo:
        item = todo.pop()
        if item.__class__ is dict:
            count += len(item)
            todo += [child for child in item.values() if child.__class__ is dict or child.__class__ is list]
        else:
            todo += [child for child in item if child.__class__ is dict or child.__class__ is list]
    return count


def _depth_exceeds(value: Any, max_depth: int) -> bool:
    level = [value]
    for _ in range(max_depth):
        level = [
            child
            for item in level
            for child in (item.values() if item.__class__ is dict else item)
            if child.__class__ is dict or child.__class__ is list
        ]
        if not level:
            return False
    return True


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise Invalid(f"the member {json.dumps(name)[:100]} occurs twice in one object")
        seen.add(name)


def containing(part: bytes) -> Callable[[bytes | None], bool]:
    """Whether a JSON object text, None for an empty one, contains this one, which is decoded once: see `contains`."""
    wanted = _decoder.decode(part)
    return lambda text: contains(_decoder.decode(text or b"{}"), wanted)


def contains(whole: Any, part: Any) -> bool:
    """Whether every member `part` gives is in `whole` and equal: objects recursively, all else by JSON equality."""
    # No recursion: a text may be nested deeper than the interpreter's stack allows.
    todo = [(whole, part)]
    while todo:
        whole, part = todo.pop()
        if isinstance(part, dict):
            if not isinstance(whole, dict) or not whole.keys() >= part.keys():
                return False
            todo += [(whole[name], value) for name, value in part.items()]
        elif not equal(whole, part):
            return False
    return True


def equal(a: Any, b: Any) -> bool:
    """JSON equality: 3 equals 3.0, true does not equal 1."""
    with contextlib.suppress(RecursionError):
        if a != b:  # as Python compares them, which is quick; what it takes for equal deserves a closer look
            return False
    todo = [(a, b)]
    while todo:
        a, b = todo.pop()
        if isinstance(a, bool) or isinstance(b, bool):
            same = a is b
        elif isinstance(a, list):
            same = isinstance(b, list) and len(a) == len(b)
            todo += zip(a, b, strict=True) if same else ()
        elif isinstance(a, dict):
            same = isinstance(b, dict) and a.keys() == b.keys()
            todo += [(value, b[name]) for name, value in a.items()] if same else ()
        else:
            same = bool(a == b)
        if not same:
            return False
    return True
