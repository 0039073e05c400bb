"""What of a request has no effect: names that its operation does not know, or not at this place.

The services ignore them, and so does Kvasir, but it says so: in a header of the response and, once a process, in the
log. Told are only names that the API knows, so that neither ever holds a key or a value. Strict requests are refused.
"""

from __future__ import annotations

import difflib
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import msgspec

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.dialects.http import Response
from kvasir.errors import Invalid

T = TypeVar("T")

log = logging.getLogger("kvasir.ignored")

#: The names that an object may have, each with those of the object below it, or of the objects in an array (a list of
#: one item); None: what is below is not looked into.
Known = Mapping[str, Any]

#: `Notes.look` or `must_be_plain`
Look = Callable[[Mapping[str, Any], Known, str], None]

HEADER = "Kvasir-Warning"

#: Of one request: what more there is, nobody needs to hear. And of a name: a longer one resembles none of ours.
MOST_NAMES, NAME_CHARACTERS = 8, 64
#: Different lines that the log has had; a process that has seen so many says no more.
MOST_LINES = 1_000
_said: set[str] = set()

_INDEX = re.compile(r"\[\d+\]")


class Tables:
    """What the operations of one API know."""

    def __init__(self, tables: Mapping[str, Known]) -> None:
        #: By operation, the names and where they belong: "expireIn" -> "options.expireIn".
        self.places = {operation: places(known) for operation, known in tables.items()}
        #: The names of all operations
        self.names = frozenset(name for table in self.places.values() for name in table)


class Notes:
    """What one request has that has no effect."""

    __slots__ = ("_left", "_operation", "_strict", "_tables", "found")

    def __init__(self, tables: Tables, operation: str, *, strict: bool) -> None:
        self._tables = tables
        self._operation = operation
        self._strict = strict
        #: Names that are still examined
        self._left = MOST_NAMES
        self.found: list[str] = []

    def look(self, given: Mapping[str, Any], known: Known, at: str) -> None:
        """Note the names that are given and not known; `at`: where, as in "options."; "" is the top.

        Raises `Invalid` if requests are strict.
        """
        if given.keys() <= known.keys():
            return
        names = [name for name in given if name not in known][:MOST_NAMES]
        if self._strict:
            fields = tuple([(f"{at}{name[:NAME_CHARACTERS]}", self._advice(name, known, at)) for name in names])
            raise Invalid("; ".join(f"{field} {what}" for field, what in fields), fields=fields)
        for name in names[: self._left]:
            self._left -= 1
            if (note := self._note(name, known, at)) is not None:
                self.found.append(note)

    def look_at_query(self, query: str) -> None:
        """The same for the names in the query of a request whose operation takes none."""
        pieces = query.split("&", MOST_NAMES)
        self.look({urllib.parse.unquote_plus(piece.partition("=")[0]): None for piece in pieces if piece}, {}, "?")

    def _advice(self, name: str, known: Known, at: str) -> str:
        """What is wrong with a name, for whoever has sent it."""
        place, is_same = self._place(name, known, at)
        if place is None:
            return "is not known here, and requests are strict; leave it out"
        return f"has no effect here; it belongs at {place}" if is_same else f"is not known here; did you mean {place}?"

    def _note(self, name: str, known: Known, at: str) -> str | None:
        """The same in words that hold no name but ours; None if there are none."""
        place, is_same = self._place(name, known, at)
        if place is None:
            return f"{self._operation} ignores {at}{name}" if name in self._tables.names else None
        if is_same:
            return f"{self._operation} ignores {at}{name}; it belongs at {place}"
        return f"{self._operation} ignores an unknown name that resembles {place}"

    def _place(self, name: str, known: Known, at: str) -> tuple[str | None, bool]:
        """Where a name belongs, or one that it resembles; and whether it is the same."""
        below = {each: f"{at}{place}" for each, place in places(known).items()} if at else {}
        reachable = self._tables.places.get(self._operation, {}) | below
        if name in reachable:
            return reachable[name], True
        if len(name) > NAME_CHARACTERS or name in self._tables.names:
            return None, False
        folded = {each.casefold(): place for each, place in reachable.items()}
        close = difflib.get_close_matches(name.casefold(), folded, 1)
        return (folded[close[0]], False) if close else (None, False)

    @property
    def taken(self) -> tuple[list[str], int]:
        """What has been noted so far, for `take`."""
        return self.found, self._left

    def take(self, taken: tuple[list[str], int]) -> None:
        """Go on from what a copy has noted."""
        self.found, self._left = taken

    def told(self, response: Response, request: str) -> Response:
        """The response, with a header if there is something to say; what is new goes to the log. `request`: its id."""
        if not self.found:
            return response
        log_once(self.found, f"request {request}")
        headers = (*response.headers, (HEADER, "; ".join(self.found)))
        return msgspec.structs.replace(response, headers=headers)


def log_once(found: Iterable[str], request: str) -> None:
    """Log what is new of what notes have found. `request`: which one."""
    for note in found:
        line = _INDEX.sub("[]", note)
        if line not in _said and len(_said) < MOST_LINES:
            _said.add(line)
            log.warning("%s: %s (this is logged once)", request, line)


async def noting(notes: Notes, read: Callable[..., T], text: bytes, *arguments: Any) -> T:
    """`read(text, *arguments, notes.look)`, beside the event loop if that may take long: see `aside`."""
    if jsontext.is_light(text):
        return read(text, *arguments, notes.look)
    return await noting_aside(notes, read, text, *arguments)


async def noting_aside(notes: Notes, read: Callable[..., T], text: bytes | str, *arguments: Any) -> T:
    """The same for any text that takes long."""
    try:
        result, taken = await aside(_noting, text, read, arguments, notes)
    except Exception as refusal:
        notes.take(getattr(refusal, "taken", notes.taken))
        raise
    notes.take(taken)
    return cast("T", result)


def _noting(
    text: bytes | str, read: Callable[..., T], arguments: tuple[Any, ...], notes: Notes
) -> tuple[T, tuple[list[str], int]]:
    try:
        return read(text, *arguments, notes.look), notes.taken
    except Exception as refusal:
        vars(refusal)["taken"] = notes.taken
        raise


class NotPlain(Exception):
    """A request has names that its operation does not know."""


def must_be_plain(given: Mapping[str, Any], known: Known, at: str) -> None:  # noqa: ARG001  (as `Notes.look`)
    """Raise `NotPlain` in place of noting anything: then the request is handled by somebody with time."""
    if not given.keys() <= known.keys():
        raise NotPlain


def places(known: Known) -> dict[str, str]:
    """Each name and the path to it; of one that is there twice, the higher place."""
    found: dict[str, str] = {}
    for name, path in _walk(known):
        found.setdefault(name, path)
    return found


def _walk(known: Known) -> Iterator[tuple[str, str]]:
    level: list[tuple[Known, str]] = [(known, "")]
    for names, at in level:
        for name, below in names.items():
            yield name, f"{at}{name}"
            if below:
                level.append((below[0], f"{at}{name}[].") if isinstance(below, list) else (below, f"{at}{name}."))
