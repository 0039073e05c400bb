"""One-time links to the console: a code in an address, which a browser exchanges for an access key within a minute.

A link is a record of the system space with the SHA-256 of its code, 256 random bits. The write that makes the access
key removes it, so one of all processes and servers spends it. Codes that are wrong leave nothing behind and cost what a
wrong access key costs. Nothing here checks permissions. The audit file has who asked for a link whenever it is used.
"""

from __future__ import annotations

import re
import secrets

import msgspec
from msgspec import Struct

from kvasir.control import access_keys, records
from kvasir.control.access_keys import AccessKey, digest_of
from kvasir.control.audit import Audit, recorded
from kvasir.engine import Engine
from kvasir.errors import Unauthenticated, Unavailable
from kvasir.keys import pack, unpack
from kvasir.model import Check, Commit, Delete, Principal, Set

#: How long a code is good for, and at most the access key that it is exchanged for.
LINK_MILLISECONDS, KEY_MILLISECONDS = 60_000, 12 * 3_600_000

#: Links of one caller that nobody has used yet.
LINKS_A_CALLER = 10

#: The name of the access keys, and where a browser takes the code to.
NAME, PATH = "console", "/console/#code={}"

_KIND = "console-link"
_CODE = re.compile(r"[\w-]{43}", re.ASCII)


class Link(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a link: who asked for it, and what the access key will be allowed."""

    organisation: str
    role: str
    asker: str
    #: SHA-256 of the asker's access key, if that is what asked
    asker_digest: str | None = None
    spaces: tuple[str, ...] | None = None
    prefix: tuple[str, ...] | None = None
    #: The end of the asker's own life
    ends_at: int | None = None
    expires_at: int


_record = msgspec.json.Decoder(Link)


def _by_digest(digest: str) -> bytes:
    return pack([_KIND, digest])


async def create(engine: Engine, now: int, asker: Principal, digest: str | None = None) -> tuple[str, int]:
    """Make a link: (its code, when it ends). `digest`: of the access key that asked.

    Raises `Unavailable` if the asker has too many.
    """
    link = Link(
        organisation=asker.organisation,
        role=asker.role,
        asker=asker.name,
        asker_digest=digest,
        spaces=None if asker.spaces is None else tuple(sorted(asker.spaces)),
        prefix=None if asker.keys is None else tuple(unpack(asker.keys.start)),
        ends_at=asker.expires_at,
        expires_at=now + LINK_MILLISECONDS,
    )
    living = [_record.decode(entry.value) for entry in await records.list_kind(engine, _KIND)]
    theirs = [each for each in living if (each.organisation, each.asker) == (link.organisation, link.asker)]
    if len(theirs) >= LINKS_A_CALLER:
        raise Unavailable(f"{LINKS_A_CALLER} links wait to be used already; use one, or wait until they have ended")
    code = secrets.token_urlsafe(32)
    mutation = Set(_by_digest(digest_of(code)), msgspec.json.encode(link), expires_at=link.expires_at)
    await records.write(engine, [mutation])
    return code, link.expires_at


async def exchange(engine: Engine, now: int, id: str, code: str, trail: Audit | None = None) -> tuple[AccessKey, str]:
    """Spend a link: the access key that it stands for, with this id, and its secret.

    Raises `Unauthenticated`, in the same words whatever the reason: the code is wrong, used or too old, or the asker's
    own access key has been revoked or has ended. `Unavailable`, with the link unspent, if the trail refuses acts that
    it cannot record.
    """
    place = _by_digest(digest_of(code)) if _CODE.fullmatch(code) else None
    entry = None if place is None else await records.read(engine, place)
    if place is None or entry is None:
        raise _refused()
    link = _record.decode(entry.value)
    end = now + KEY_MILLISECONDS if link.ends_at is None else min(now + KEY_MILLISECONDS, link.ends_at)
    if link.expires_at <= now or end <= now:
        raise _refused()
    secret = access_keys.new_secret()
    key = AccessKey(
        id=id,
        organisation=link.organisation,
        role=link.role,
        name=NAME,
        digest=digest_of(secret),
        created_at=now,
        spaces=link.spaces,
        prefix=link.prefix,
        expires_at=end,
        made_by=link.asker_digest,
    )
    conditions = (Check(place, entry.versionstamp), *access_keys.maker_is_there(key))
    # Whoever has the code may be somebody else.
    by = Principal(link.organisation, link.role, f"a link of {link.asker}")
    async with recorded(trail, by, "console-link.exchange", id):
        outcome = await records.write(engine, [Delete(place), *access_keys.addition(key, forget=True)], conditions)
        if not isinstance(outcome, Commit):
            raise _refused()
    return key, secret


def _refused() -> Unauthenticated:
    return Unauthenticated(
        f"the link has been used, is older than {LINK_MILLISECONDS // 1_000} seconds or was never made; "
        "ask for a new one: kvasir console"
    )
