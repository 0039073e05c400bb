"""Access keys, kept as entries of the system space.

Every write there moves the engine's epoch, so a revoked key stops working at once in every process. Of a secret only
its SHA-256 is kept: it has 256 random bits, or is the operator's own, so that guessing is hopeless without slow hashes.
Nothing here decides who may do what: whoever can open the database may call it.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from msgspec import Struct

from kvasir.engine import Clock, Engine
from kvasir.errors import Conflicting, Invalid, KvasirError, NotFound
from kvasir.keys import pack, prefix_range
from kvasir.model import SYSTEM_SPACE, Check, Commit, Delete, Entry, Mutation, Query, Set, Write

ROLES = ("owner", "admin", "developer", "viewer")

#: Begins every generated access key, so that people and secret scanners recognise one.
KEY_PREFIX = "kv_"

#: Id of the key whose secret is the setting `admin_key`.
ADMIN_KEY_ID = "admin"

NAME_CHARACTERS = 255


class AccessKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an access key."""

    #: A ULID, or "admin"
    id: str
    organisation: str
    role: str
    name: str
    #: SHA-256 of the secret, in hex
    digest: str
    created_at: int
    #: ULIDs of the only stores it opens; None: all of the organisation
    spaces: tuple[str, ...] | None = None
    #: Parts every key it uses begins with; None: any key
    prefix: tuple[str, ...] | None = None
    expires_at: int | None = None


_record = msgspec.json.Decoder(AccessKey)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _place(key_id: str) -> bytes:
    return pack(["access-key", key_id])


def _index(digest: str) -> bytes:
    return pack(["access-key-digest", digest])


def new_secret() -> str:
    """A new access key's secret: 256 random bits behind a prefix."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


async def create_key(engine: Engine, key: AccessKey) -> None:
    """Keep a new access key. Raises `Invalid` for a bad member and `Conflicting` if its id or secret exists."""
    if key.role not in ROLES:
        raise Invalid(f"the role must be one of: {', '.join(ROLES)}", fields=(("role", "unknown"),))
    if not 0 < len(key.name) <= NAME_CHARACTERS:
        raise Invalid(f"the name must have 1 to {NAME_CHARACTERS} characters", fields=(("name", "length"),))
    conditions = (Check(_place(key.id), None), Check(_index(key.digest), None))
    outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(added(key)), conditions)]))[0]
    if isinstance(outcome, KvasirError):
        raise outcome
    if not isinstance(outcome, Commit):
        raise Conflicting("an access key with this id or secret exists already")


def added(key: AccessKey) -> list[Mutation]:
    return [
        Set(_place(key.id), msgspec.json.encode(key)),
        Set(_index(key.digest), msgspec.json.encode(key.id)),
    ]


async def find_key(engine: Engine, digest: str) -> AccessKey | None:
    """The access key whose secret has this digest."""
    index = (await engine.get(SYSTEM_SPACE, [_index(digest)]))[0]
    if index is None:
        return None
    place = _place(msgspec.json.decode(index.value, type=str))
    return _decoded((await engine.get(SYSTEM_SPACE, [place]))[0])


async def list_keys(engine: Engine, organisation: str) -> list[AccessKey]:
    """The access keys of an organisation, oldest first, expired ones included."""
    page = await engine.page(SYSTEM_SPACE, Query(range=prefix_range(["access-key"]), order="oldest"))
    keys = (_record.decode(entry.value) for entry in page.entries)
    return [key for key in keys if key.organisation == organisation]


async def revoke_key(engine: Engine, key_id: str) -> AccessKey:
    """Remove an access key; no process accepts it from now on. Raises `NotFound`."""
    while True:
        entry = (await engine.get(SYSTEM_SPACE, [_place(key_id)]))[0]
        key = _decoded(entry)
        if entry is None or key is None:
            raise NotFound(f"there is no access key with the id {key_id}; `kvasir key list` shows them")
        mutations = (Delete(_place(key_id)), Delete(_index(key.digest)))
        unchanged = Check(_place(key_id), entry.versionstamp)
        outcome = (await engine.write([Write(SYSTEM_SPACE, mutations, (unchanged,))]))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if isinstance(outcome, Commit):
            return key


def _decoded(entry: Entry | None) -> AccessKey | None:
    return None if entry is None else _record.decode(entry.value)


async def set_admin_key(engine: Engine, organisation: str, secret: str, clock: Clock) -> None:
    """Make the setting `admin_key` an owner's key, in place of a former one. Raises `Invalid` if another key has it."""
    digest = digest_of(secret)
    while True:
        entry, taken = await engine.get(SYSTEM_SPACE, [_place(ADMIN_KEY_ID), _index(digest)])
        former = _record.decode(entry.value) if entry else None
        if former is not None and former.digest == digest:
            return
        if taken is not None:
            raise Invalid("the setting admin_key is the secret of another access key: choose a new one")
        key = AccessKey(
            id=ADMIN_KEY_ID,
            organisation=organisation,
            role="owner",
            name="the setting admin_key",
            digest=digest,
            created_at=clock(),
        )
        mutations = [*([Delete(_index(former.digest))] if former else ()), *added(key)]
        unchanged = Check(_place(ADMIN_KEY_ID), entry.versionstamp if entry else None)
        outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(mutations), (unchanged,))]))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if isinstance(outcome, Commit):
            return
