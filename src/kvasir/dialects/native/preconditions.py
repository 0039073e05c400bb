"""ETags, and the conditional headers of a request (RFC 9110, section 13). Pure.

The ETag of a value is its versionstamp. That of a whole entry has its expiry, too, which a touch changes without
changing the versionstamp; as a condition of a write it stands for its versionstamp.
"""

from __future__ import annotations

import re
from typing import Any

from kvasir.dialects.http import Request
from kvasir.errors import Conflicting, Invalid
from kvasir.keys import parse_versionstamp
from kvasir.model import Entry

ANY = ("*",)

#: One member of a list of tags, which may be empty, and what ends it. Nothing in it is tried twice: blanks before what
#: is no tag would be given up one by one.
MEMBER = re.compile(r'\s*+(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*+")\s*+)?(?:,|\Z)')


class ConditionNotMet(Conflicting):
    """A condition of the request does not hold: 412."""

    def __init__(self, message: str, **present: Any) -> None:
        """`present`: what there is instead, as members of the answer; the `versionstamp` of a key as a number."""
        super().__init__(message)
        self.present = present


def entry_tag(entry: Entry) -> str:
    """The ETag of a whole entry."""
    return f'"{entry.versionstamp:020x}-{entry.expires_at or 0:x}"'


def tags(request: Request, header: str) -> tuple[str, ...]:
    """The tags in a header, quotes included, or `ANY`; () without the header.

    Raises `Invalid` for what is no list of tags, for one without a tag, which would otherwise be no condition at all,
    and for a weak tag in If-Match.
    """
    text = request.header(header)
    if text is None:
        return ()
    if text.strip() == "*":
        return ANY
    found: list[str] = []
    at = 0
    while at < len(text):
        match = MEMBER.match(text, at)
        if match is None:
            found.clear()
            break
        if match[1] and header == "if-match":
            raise _blame(
                header,
                "has a weak ETag (W/…), which matches nothing; a proxy that compresses answers has probably made it so",
            )
        if match[2]:
            found.append(match[2])
        at = match.end()
    if not found:
        raise _blame(header, 'must be "*" or a list of ETags, each in double quotes')
    return tuple(found)


def refuse(request: Request, instead: str) -> None:
    """Raises `Invalid` for a condition in a header of a request that has its own way to say one: `instead`."""
    for header in ("if-match", "if-none-match"):
        if request.header(header) is not None:
            raise _blame(header, f"has no effect in this request; {instead}")


def _blame(header: str, what: str) -> Invalid:
    return Invalid(f"the header {header} {what}", fields=((header, what),))


def versionstamp(tag: str) -> int:
    """The versionstamp that an ETag stands for; -1, which no entry has, if it is none of ours."""
    return parse_versionstamp(tag[1:21]) if tag[21:22] in ('"', "-") else -1
