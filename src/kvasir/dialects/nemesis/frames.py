"""The JSON of messages and replies, and what parameters have to look like, by tables. Pure.

A request is a JSON object with one member, the command, whose value holds the parameters. The checks are made in the
order of NemesisDB 0.3.0, since its clients compare whole replies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Container
from typing import Any

import msgspec
from msgspec import Struct

from kvasir.dialects.ignored import Known
from kvasir.dialects.nemesis.statuses import Status
from kvasir.jsontext import BYTE_ORDER_MARK

_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode

#: What the fast encoder prints differently than NemesisDB did, with every digit replaced by 0: exponents, and integers
#: that may be longer than 64 bits.
_ZEROS = bytes(48 if 48 <= byte < 58 else byte for byte in range(256))
_EXPONENT, _LONG = b"0e", b"0" * 19
_SMALLEST, _BIGGEST = -(2**63), 2**64 - 1


class NotText(Exception):
    """The message is not UTF-8: the connection ends with close code 1007."""


class Malformed(Exception):
    """The message is not JSON, or is nested too deeply."""


class Refusal(Struct, frozen=True):
    """What is wrong with a parameter."""

    status: Status
    message: str = ""
    #: Whether the reply stands under the bare command: a quirk of version 0.3 that its clients may rely on.
    bare: bool = False


class Parameter(Struct, frozen=True):
    """A parameter of a command, and how it is refused."""

    name: str
    type: type
    #: None: it is optional.
    missing: Refusal | None
    wrong: Refusal
    #: None: it may be empty.
    empty: Refusal | None = None


class Shape:
    """The parameters of a command: how many, and which."""

    def __init__(
        self,
        *parameters: Parameter,
        min_members: int = 0,
        max_members: int | None = None,
        optional: Known | None = None,
        any_names: bool = False,
    ) -> None:
        """`optional`: parameters that are not checked here. `any_names`: the names of some are the client's own."""
        self.parameters = parameters
        self.known: Known = {row.name: None for row in parameters} | dict(optional or {})
        #: Only a command with more members than this can have one that is not known.
        self.usual = sys.maxsize if any_names else len(parameters)
        self._min = min_members
        self._max = max_members
        self._counts = min_members > 0 or max_members is not None
        # Unpacked once, since they are needed for every command.
        self._rows = [(row.name, row.type, row.missing, row.wrong, row.empty) for row in parameters]

    def fault(self, body: dict[str, Any]) -> Refusal | None:
        """How these parameters are refused, the rows being checked in order; None if they are not."""
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
    """The session token, which has the same refusal whatever is wrong with it."""
    refusal = Refusal(Status.SESSION_TOKEN_INVALID, "", bare)
    return Parameter("tkn", str, refusal, refusal, refusal)


def required(name: str, type: type, missing: Status, *, message: str | None = None, empty: bool = True) -> Parameter:
    """A parameter that must not be missing; the refusal of a missing one says `message`, by default its name."""
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
        # Brackets in strings are counted, too, so the count only says which messages need a closer look.
        if len(message) > max_depth and message.count(b"[") + message.count(b"{") > max_depth:
            _check_depth(value, max_depth)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        if message.startswith(BYTE_ORDER_MARK) and not message.startswith(2 * BYTE_ORDER_MARK):
            return parse(message[len(BYTE_ORDER_MARK) :], max_depth)  # the original skips it, too
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
    """A value as it is stored: compact JSON in the format of version 0.3.0.

    1e3 becomes 1000.0, and an integer that does not fit 64 bits the nearest double. Raises ValueError for a number that
    does not fit a double.
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
    """The frame of a reply."""
    return encode({command + "_RSP": body})


def error(status: Status, message: str = "") -> bytes:
    """The reply to a message without a usable command."""
    return encode({"ERR": {"st": status, "m": message}})


def refused(command: str, refusal: Refusal) -> bytes:
    """The reply that refuses a command."""
    key = command if refusal.bare else command + "_RSP"
    return encode({key: {"st": refusal.status, "tkn": None, "m": refusal.message}})


def refuse_message(message: Any, known: Container[str]) -> bytes:
    """The reply that refuses a message without a usable command."""
    if message.__class__ is not dict or not message:
        return error(Status.JSON_INVALID if message is None else Status.COMMAND_SYNTAX)
    name = next(iter(message))
    if len(message) > 1:
        return refused(name, Refusal(Status.COMMAND_MULTIPLE))
    return refused(name, Refusal(Status.COMMAND_TYPE)) if name in known else error(Status.COMMAND_NOT_EXIST, name)
