"""Access keys: who may use which stores, as records of the system space.

Only the SHA-256 of a secret is kept. It needs no slow hash: a secret is 256 random bits, or chosen by the operator.
Nothing here checks permissions: whoever can open the database may call it.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from msgspec import Struct

from kvasir.control import records
from kvasir.engine import Clock, Engine
from kvasir.errors import Conflicting, Invalid, NotFound
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Check, Commit, Condition, Delete, Entry, Mutation, Present, Set

ROLES = ("owner", "admin", "developer", "viewer")

#: Starts every generated access key, so that people and secret scanners recognise one.
KEY_PREFIX = "kv_"

#: Id of the key whose secret is the setting `admin_key`.
ADMIN_KEY_ID = "admin"

NAME_CHARACTERS = 255

_KIND = "access-key"


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
    #: The parts that every key it may use begins with; None: any key
    prefix: tuple[str, ...] | None = None
    expires_at: int | None = None
    #: Digest of the access key that this one came from by a link to the console, and with which it ends
    made_by: str | None = None


_record = msgspec.json.Decoder(AccessKey)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _by_id(key_id: str) -> bytes:
    return pack([_KIND, key_id])


def _by_digest(digest: str) -> bytes:
    return pack(["access-key-digest", digest])


def new_secret() -> str:
    """The secret of a new access key: 256 random bits after a prefix."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


async def create_key(engine: Engine, key: AccessKey) -> None:
    """Keep a new access key. Raises `Invalid` for a bad role or name and `Conflicting` if its id or secret exists."""
    if key.role not in ROLES:
        wrong = f"must be one of: {', '.join(ROLES)}"
        raise Invalid(f"the role {wrong}", fields=(("role", wrong),))
    if not 0 < len(key.name) <= NAME_CHARACTERS:
        wrong = f"must have 1 to {NAME_CHARACTERS} characters"
        raise Invalid(f"the name {wrong}", fields=(("name", wrong),))
    conditions = (Check(_by_id(key.id), None), Check(_by_digest(key.digest), None))
    if not isinstance(await records.write(engine, addition(key), conditions), Commit):
        raise Conflicting("an access key with this id or secret exists already")


def addition(key: AccessKey, *, forget: bool = False) -> list[Mutation]:
    """The mutations of the system space that add a key. `forget`: nothing is to be left of it when it has ended."""
    end = key.expires_at if forget else None
    return [
        Set(_by_id(key.id), msgspec.json.encode(key), expires_at=end),
        Set(_by_digest(key.digest), msgspec.json.encode(key.id), expires_at=end),
    ]


def maker_is_there(key: AccessKey) -> list[Condition]:
    """The condition that the access key which this one came from has not been revoked."""
    return [] if key.made_by is None else [Present(_by_digest(key.made_by))]


async def find_key(engine: Engine, digest: str) -> AccessKey | None:
    """The access key whose secret has this digest."""
    key_id = await records.read(engine, _by_digest(digest))
    if key_id is None:
        return None
    key = _decoded(await records.read(engine, _by_id(msgspec.json.decode(key_id.value, type=str))))
    if key is not None and key.made_by is not None and await records.read(engine, _by_digest(key.made_by)) is None:
        return None
    return key


async def list_keys(engine: Engine, organisation: str) -> list[AccessKey]:
    """The access keys of an organisation, oldest first, expired ones included."""
    keys = [_record.decode(entry.value) for entry in await records.list_kind(engine, _KIND)]
    return [key for key in keys if key.organisation == organisation]


async def revoke_key(engine: Engine, key_id: str) -> AccessKey:
    """Remove an access key, and those that came from it; no process accepts them from now on. Raises `NotFound`."""
    while True:
        entry = await records.read(engine, _by_id(key_id))
        key = _decoded(entry)
        if entry is None or key is None:
            raise NotFound(f"there is no access key with the id {key_id}; `kvasir key list` shows them")
        ending = [key, *(each for each in await list_keys(engine, key.organisation) if each.made_by == key.digest)]
        mutations = [Delete(place) for each in ending for place in (_by_id(each.id), _by_digest(each.digest))]
        unchanged = Check(_by_id(key_id), entry.versionstamp)
        if isinstance(await records.write(engine, mutations, (unchanged,)), Commit):
            return key


def _decoded(entry: Entry | None) -> AccessKey | None:
    return None if entry is None else _record.decode(entry.value)


async def set_admin_key(engine: Engine, organisation: str, secret: str, clock: Clock) -> None:
    """Make the setting `admin_key` an owner's key, replacing the previous one.

    Raises `Invalid` if another key has this secret.
    """
    digest = digest_of(secret)
    while True:
        entry, same_digest = await engine.get(SYSTEM_SPACE, [_by_id(ADMIN_KEY_ID), _by_digest(digest)])
        previous = _decoded(entry)
        if previous is not None and previous.digest == digest:
            return
        if same_digest is not None:
            raise Invalid("the setting admin_key is the secret of another access key: choose a new one")
        key = AccessKey(
            id=ADMIN_KEY_ID,
            organisation=organisation,
            role="owner",
            name="the setting admin_key",
            digest=digest,
            created_at=clock(),
        )
        mutations = [*([Delete(_by_digest(previous.digest))] if previous else ()), *addition(key)]
        unchanged = Check(_by_id(ADMIN_KEY_ID), entry.versionstamp if entry else None)
        if isinstance(await records.write(engine, mutations, (unchanged,)), Commit):
            return
