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

_tags = re.compile(r'\s*(?:(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?\s*(?:,|\Z))')


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

    Raises `Invalid` for what is no list of tags, and for a weak one in If-Match.
    """
    text = request.header(header)
    if text is None:
        return ()
    if text.strip() == "*":
        return ANY
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _tags.match(text, at)
        if match is None:
            what = 'must be "*" or a list of ETags, each in double quotes'
            raise Invalid(f"the header {header} {what}", fields=((header, what),))
        if match[1] and header == "if-match":
            what = (
                "has a weak ETag (W/…), which matches nothing; a proxy that compresses answers has probably made it so"
            )
            raise Invalid(f"the header {header} {what}", fields=((header, what),))
        if match[2]:
            found.append(match[2])
        at = match.end()
    return tuple(found)


def versionstamp(tag: str) -> int:
    """The versionstamp that an ETag stands for; -1, which no entry has, if it is none of ours."""
    return parse_versionstamp(tag[1:21]) if tag[21:22] in ('"', "-") else -1
