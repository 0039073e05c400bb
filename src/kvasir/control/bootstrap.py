"""The first start of a database: its first organisation, the store `default` and the owner key."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from ulid import ULID

from kvasir.config.table import Config
from kvasir.control import stores
from kvasir.control.access_keys import AccessKey, added, digest_of, new_secret, set_admin_key
from kvasir.control.copy_mark import COPY_MARK, incomplete, take_over
from kvasir.control.organisation import FIRST, first_organisation
from kvasir.engine import Clock, Engine
from kvasir.errors import Invalid, KvasirError
from kvasir.model import SYSTEM_SPACE, Check, Commit, Mutation, Set, Write

#: The store of the first start.
DEFAULT_STORE = "default"


class FirstStart(Struct, frozen=True):
    """What the first start made."""

    organisation: str
    store: str
    #: The owner key's secret, to be shown once; None: it is the setting `admin_key`
    key: str | None


async def bootstrap(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    """Make the first organisation, its store `default` and its owner key, unless they are there; set the admin key.

    Several processes may do this at once: one makes everything. Raises `Invalid` for settings that contradict
    the database and `Unavailable` for a copy that is not complete.
    """
    made = None
    await take_over(engine)
    if (await engine.get(SYSTEM_SPACE, [FIRST]))[0] is None:
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
        await set_admin_key(engine, organisation, config.admin_key, clock)
    return made


async def _first_start(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    organisation = config.organisation_id or str(ULID())
    # The store comes first: whoever sees the organisation finds it complete.
    own = msgspec.structs.replace(stores.unmade(organisation, DEFAULT_STORE), id=str(ULID()), created_at=clock())
    store = await engine.create_space(own, [stores.by_name(organisation, DEFAULT_STORE)])
    mutations: list[Mutation] = [Set(FIRST, msgspec.json.encode(organisation))]
    secret = None
    if config.admin_key is None:
        secret = new_secret()
        mutations += added(
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
    conditions = (Check(FIRST, None), Check(COPY_MARK, None))
    outcome = (await engine.write([Write(SYSTEM_SPACE, tuple(mutations), conditions)]))[0]
    if isinstance(outcome, Commit):
        return FirstStart(organisation, store.id, secret)
    if isinstance(outcome, KvasirError):
        raise outcome
    if outcome.key == COPY_MARK:
        # The other store with this alias would be one that is being copied.
        await engine.end_space(own.id)
        raise incomplete()
    if config.organisation_id is None:
        # Another process was first, under an organisation of its own.
        await engine.end_space(store.id)
    return None
