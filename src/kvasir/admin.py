"""The control plane: organisations and access keys, kept as entries of the system space.

Every write there moves the engine's epoch, so a revoked key stops working at once in every process. Of a secret only
its SHA-256 is kept: it has 256 random bits, or is the operator's own, so that guessing is hopeless without slow hashes.
Nothing here decides who may do what: whoever can open the database may call it.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from msgspec import Struct
from ulid import ULID

from kvasir.config import Config
from kvasir.engine import Clock, Engine
from kvasir.errors import Conflicting, Invalid, KvasirError, NotFound, Unavailable
from kvasir.keys import pack, prefix_range, versionstamp_text
from kvasir.model import SYSTEM_SPACE, Check, Commit, Delete, Door, Entry, Mutation, Query, Set, Space, Write

ROLES = ("owner", "admin", "developer", "viewer")
#: Begins every generated access key, so that people and secret scanners recognise one.
KEY_PREFIX = "kv_"
#: Id of the key whose secret is the setting `admin_key`.
ADMIN_KEY_ID = "admin"
#: The store of the first start.
DEFAULT_STORE = "default"
NAME_CHARACTERS = 255

_USED = (
    "the database to be filled has data of its own, perhaps from a server or a command that has begun to use it;"
    " nothing was changed: name an empty one"
)

_FIRST = pack(["first-organisation"])
#: Where a database that was filled from another one says so, until somebody begins to use it.
COPY_MARK = pack(["copy"])


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


class FirstStart(Struct, frozen=True):
    """What the first start made."""

    organisation: str
    store: str
    #: The owner key's secret, to be shown once; None: it is the setting `admin_key`
    key: str | None


_record = msgspec.json.Decoder(AccessKey)


class CopyMark(Struct, frozen=True):
    """What a copy says about itself."""

    #: See `origin`; None: it is not a copy of anything yet.
    origin: str | None
    #: False: it is being filled, or that was interrupted.
    complete: bool


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _place(key_id: str) -> bytes:
    return pack(["access-key", key_id])


def _index(digest: str) -> bytes:
    return pack(["access-key-digest", digest])


# -- the first start ------------------------------------------------------------------------------------------


async def bootstrap(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    """Make the first organisation, its store `default` and its owner key, unless they are there; set the admin key.

    Several processes may do this at once: one makes everything. Raises `Invalid` for settings that contradict
    the database and `Unavailable` for a copy that is not complete.
    """
    made = None
    await take_over(engine)
    if (await engine.get(SYSTEM_SPACE, [_FIRST]))[0] is None:
        made = await _first_start(engine, config, clock)
    # A whole copy may have been made since. From here on none is: the record is there, and no mark.
    await take_over(engine)
    organisation = await first_organisation(engine)
    if config.organisation_id not in (None, organisation):
        raise Invalid(
            f"the database belongs to organisation {organisation}, but the setting organisation_id says "
            f"{config.organisation_id}: remove the setting or use another data directory"
        )
    if config.admin_key is not None:
        await _set_admin_key(engine, organisation, config.admin_key, clock)
    return made


async def _first_start(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    organisation = config.organisation_id or str(ULID())
    door: Door = ("store", organisation, DEFAULT_STORE)
    # The store comes first: whoever sees the organisation finds it complete.
    own = Space(str(ULID()), 0, organisation, "store", DEFAULT_STORE, created_at=clock())
    store = await engine.create_space(own, [door])
    mutations: list[Mutation] = [Set(_FIRST, msgspec.json.encode(organisation))]
    secret = None
    if config.admin_key is None:
        secret = new_secret()
        mutations += _added(
            AccessKey(
                id=str(ULID()),
                organisation=organisation,
                role="owner",
                name="first owner",
                digest=digest_of(secret),
                created_at=clock(),
            )
        )
    # The mark is looked at again, since `kvasir copy` or `kvasir load` may have come in between.
    conditions = (Check(_FIRST, None), Check(COPY_MARK, None))
    outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(mutations), conditions)]))[0]
    if isinstance(outcome, Commit):
        return FirstStart(organisation, store.id, secret)
    if isinstance(outcome, KvasirError):
        raise outcome
    if outcome.key == COPY_MARK:
        # The other store with this door would be one that is being copied.
        await engine.end_space(own.id)
        raise _incomplete()
    if config.organisation_id is None:
        # Another process was first, under an organisation of its own.
        await engine.end_space(store.id)
    return None


async def first_organisation(engine: Engine) -> str:
    """The ULID of the organisation of the first start. Raises `NotFound` before that."""
    return msgspec.json.decode((await _first(engine)).value, type=str)


async def _first(engine: Engine) -> Entry:
    entry = (await engine.get(SYSTEM_SPACE, [_FIRST]))[0]
    if entry is None:
        raise NotFound("the database is empty; `kvasir serve` fills it at its first start")
    return entry


async def _set_admin_key(engine: Engine, organisation: str, secret: str, clock: Clock) -> None:
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
        mutations = [*([Delete(_index(former.digest))] if former else ()), *_added(key)]
        unchanged = Check(_place(ADMIN_KEY_ID), entry.versionstamp if entry else None)
        outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(mutations), (unchanged,))]))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if isinstance(outcome, Commit):
            return


# -- copies ---------------------------------------------------------------------------------------------------


async def origin(engine: Engine) -> str:
    """Names the first start of a database; copies of it have the same. Raises `NotFound` before that."""
    first = await _first(engine)
    return f"{msgspec.json.decode(first.value, type=str)}-{versionstamp_text(first.versionstamp)}"


async def copy_mark(engine: Engine) -> CopyMark | None:
    """What a copy that nobody has begun to use says about itself; None for any other database."""
    mark, _ = await _copy_mark(engine)
    return mark if mark is not None and mark.origin is not None else None


async def _copy_mark(engine: Engine) -> tuple[CopyMark | None, int | None]:
    """The mark as it is stored, and its versionstamp: what a write that depends on it checks."""
    entry = (await engine.get(SYSTEM_SPACE, [COPY_MARK]))[0]
    if entry is None:
        return None, None
    return msgspec.json.decode(entry.value, type=CopyMark), entry.versionstamp


async def claim(engine: Engine, origin: str) -> int:
    """Mark a database as an incomplete copy of the one with this `origin`; the versionstamp of the mark.

    Raises `Conflicting` if the database is none that may be filled from there. A server that starts at the same time
    and this exclude each other: each writes on the condition that the other one has not.
    """
    mark, stamp = await _copy_mark(engine)
    if mark is not None and mark.origin is not None:
        if mark.origin != origin:
            raise Conflicting(
                "the database to be filled is a copy of another one; nothing was changed: name an empty one"
            )
        return await _mark(engine, CopyMark(origin, complete=False), Check(COPY_MARK, stamp))
    if await _has_records(engine) or await engine.list_spaces(limit=1):
        raise Conflicting(_USED)
    if stamp is None:
        # Older than anything that is copied, so that the mark takes no number from it: a write cannot do that. It keeps
        # this place when it is written over, and says nothing until then.
        nothing = Entry(COPY_MARK, msgspec.json.encode(CopyMark(None, complete=True)), 1, 1, created_at=0)
        await engine.load(SYSTEM_SPACE, [nothing])
        stamp = nothing.versionstamp
    stamp = await _mark(engine, CopyMark(origin, complete=False), Check(_FIRST, None), Check(COPY_MARK, stamp))
    if await engine.list_spaces(limit=1):
        # A first start makes its store before its record; it is refused now, and takes the store away.
        await engine.write([Write(SYSTEM_SPACE, (Delete(COPY_MARK),), (Check(COPY_MARK, stamp),))])
        raise Conflicting(_USED)
    return stamp


async def _has_records(engine: Engine) -> bool:
    entries = (await engine.page(SYSTEM_SPACE, Query(limit=2, values=False))).entries
    return any(entry.key != COPY_MARK for entry in entries)


async def is_claimed(engine: Engine, stamp: int) -> bool:
    """Whether the mark is still the one that `claim` made."""
    return (await _copy_mark(engine))[1] == stamp


async def complete_copy(engine: Engine, origin: str, stamp: int) -> None:
    """Mark a claimed database as a complete copy. Raises `Conflicting` if the claim is lost."""
    await _mark(engine, CopyMark(origin, complete=True), Check(COPY_MARK, stamp))


async def _mark(engine: Engine, mark: CopyMark, *conditions: Check) -> int:
    mutation = Set(COPY_MARK, msgspec.json.encode(mark))
    outcome = (await engine.write([Write(SYSTEM_SPACE, (mutation,), conditions)]))[0]
    if isinstance(outcome, Commit):
        return outcome.versionstamp
    if isinstance(outcome, KvasirError):
        raise outcome
    raise Conflicting("another program has begun to use the database that is being filled; nothing is certain")


async def take_over(engine: Engine) -> None:
    """Make a complete copy a database of its own, which nothing is copied to any more; others are left as they are.

    Raises `Unavailable` for a copy that is not complete.
    """
    while True:
        mark, stamp = await _copy_mark(engine)
        if mark is None:
            return
        if not mark.complete:
            raise _incomplete()
        outcome = (await engine.write([Write(SYSTEM_SPACE, (Delete(COPY_MARK),), (Check(COPY_MARK, stamp),))]))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if isinstance(outcome, Commit):
            return


def _incomplete() -> Unavailable:
    return Unavailable(
        "the database is being filled by `kvasir copy` or `kvasir load`, or that was interrupted:"
        " let it come to its end, or run it again"
    )


# -- access keys ----------------------------------------------------------------------------------------------


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
    outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(_added(key)), conditions)]))[0]
    if isinstance(outcome, KvasirError):
        raise outcome
    if not isinstance(outcome, Commit):
        raise Conflicting("an access key with this id or secret exists already")


def _added(key: AccessKey) -> list[Mutation]:
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
