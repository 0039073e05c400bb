"""Frames to commands and replies to frames, by tables. Pure: no I/O, no clock, no store.

A request is one JSON object with one member, the command; its value holds the parameters. The order of the checks is
that of NemesisDB 0.3.0, whose clients compare whole replies.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

import msgspec
from msgspec import Struct

from kvasir.dialects.nemesis.statuses import Status

_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode

#: What the fast encoder prints otherwise than NemesisDB did, seen with every digit as 0: exponents, and integers
#: that may be beyond 64 bits.
_ZEROS = bytes(48 if 48 <= byte < 58 else byte for byte in range(256))
_EXPONENT, _LONG = b"0e", b"0" * 19
_SMALLEST, _BIGGEST = -(2**63), 2**64 - 1


class NotText(Exception):
    """The message is not UTF-8: the connection ends with close code 1007."""


class Malformed(Exception):
    """The message is no JSON, or nested too deep."""


class Refusal(Struct, frozen=True):
    """What is wrong with a parameter."""

    status: Status
    message: str = ""
    #: Whether the reply is keyed by the bare command: a quirk of version 0.3 that its clients may rely on.
    bare: bool = False


class Parameter(Struct, frozen=True):
    """One row of a command: a member of its value and the refusals it may earn."""

    name: str
    type: type
    #: None: it may be left out.
    missing: Refusal | None
    wrong: Refusal
    #: None: it may be empty.
    empty: Refusal | None = None


class Shape:
    """How many members a command's value may have, and which."""

    def __init__(self, *parameters: Parameter, min_members: int = 0, max_members: int | None = None) -> None:
        self.parameters = parameters
        self._min = min_members
        self._max = max_members
        self._counts = min_members > 0 or max_members is not None
        # Looked at for every command, so taken apart once.
        self._rows = [(row.name, row.type, row.missing, row.wrong, row.empty) for row in parameters]

    def fault(self, body: dict[str, Any]) -> Refusal | None:
        """The first refusal that the parameters of a command earn, in the order of the rows."""
        if self._counts and (len(body) < self._min or (self._max is not None and len(body) > self._max)):
            return Refusal(Status.COMMAND_SYNTAX)
        for name, type, missing, wrong, empty in self._rows:
            if name not in body:
                if missing is not None:
                    return missing
            elif body[name].__class__ is not type:
                return wrong
            elif empty is not None and not body[name]:
                return empty
        return None


def token(*, bare: bool = False) -> Parameter:
    """The row of the session token: whatever is wrong with it is SessionTokenInvalid."""
    refusal = Refusal(Status.SESSION_TOKEN_INVALID, "", bare)
    return Parameter("tkn", str, refusal, refusal, refusal)


def required(name: str, type: type, missing: Status, *, message: str | None = None, empty: bool = True) -> Parameter:
    """A row for a parameter that must be there; `message` is what a missing one is answered with, else its name."""
    return Parameter(
        name,
        type,
        Refusal(missing, name if message is None else message),
        Refusal(Status.VALUE_TYPE_INVALID, name),
        None if empty else Refusal(Status.VALUE_SIZE, name),
    )


def parse(message: bytes, max_depth: int) -> Any:
    """The JSON value of a message. Raises `NotText` or `Malformed`."""
    try:
        value = _decode(message)
        # A message of fewer bytes cannot be too deep.
        if len(message) > max_depth and message.count(b"[") + message.count(b"{") > max_depth:
            _check_depth(value, max_depth)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        try:
            message.decode()
        except UnicodeDecodeError:
            raise NotText from None
        raise Malformed from None
    return value


def _check_depth(value: Any, max_depth: int) -> None:
    level = [value]
    for _ in range(max_depth + 1):
        if not level:
            return
        level = [
            child
            for item in level
            if item.__class__ is dict or item.__class__ is list
            for child in (item.values() if item.__class__ is dict else item)
        ]
    raise Malformed


def value_text(value: Any) -> bytes:
    """A value as it is stored: compact JSON, printed as version 0.3.0 did.

    1e3 is 1000.0, and an integer beyond 64 bits is the nearest double. Raises ValueError for one beyond a double.
    """
    text = encode(value)
    if len(text) < 4:
        return text
    zeros = text.translate(_ZEROS)
    if _LONG in zeros or _EXPONENT in zeros:
        exact = json.loads(text, parse_int=_integer)
        return json.dumps(exact, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return text


def _integer(digits: str) -> int | float:
    if len(digits) > 20 or not _SMALLEST <= int(digits) <= _BIGGEST:
        return float(digits)
    return int(digits)


def reply(command: str, body: dict[str, Any]) -> bytes:
    """The frame of a command's reply."""
    return encode({command + "_RSP": body})


def error(status: Status, message: str = "") -> bytes:
    """The frame that answers a message without a usable command."""
    return encode({"ERR": {"st": status, "m": message}})


def refused(command: str, refusal: Refusal) -> bytes:
    """The frame that refuses a command."""
    key = command if refusal.bare else command + "_RSP"
    return encode({key: {"st": refusal.status, "tkn": None, "m": refusal.message}})


def refuse_message(message: Any, known: Container[str]) -> bytes:
    """The frame that refuses a message without a usable command."""
    if message.__class__ is not dict or not message:
        return error(Status.JSON_INVALID if message is None else Status.COMMAND_SYNTAX)
    name = next(iter(message))
    if len(message) > 1:
        return refused(name, Refusal(Status.COMMAND_MULTIPLE))
    return refused(name, Refusal(Status.COMMAND_TYPE)) if name in known else error(Status.COMMAND_NOT_EXIST, name)
