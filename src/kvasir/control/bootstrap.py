"""The first start of a database: its organisation, the store `default` and the first owner's access key."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from ulid import ULID

from kvasir.config.table import Config
from kvasir.control import records, stores
from kvasir.control.access_keys import AccessKey, addition, digest_of, new_secret, set_admin_key
from kvasir.control.copy_mark import COPY_MARK, begin_use, incomplete
from kvasir.control.organisation import FIRST, first_organisation
from kvasir.engine import Clock, Engine
from kvasir.errors import Invalid
from kvasir.model import Check, Commit, Mutation, Set

#: The store that the first start creates.
DEFAULT_STORE = "default"


class FirstStart(Struct, frozen=True):
    """What the first start created."""

    organisation: str
    #: ULID of the store
    store: str
    #: The owner key's secret, to be shown once; None: it is the setting `admin_key`
    key: str | None


async def bootstrap(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    """Create what a database needs before its first use, unless it is there; set the admin key.

    Several processes may do this at once: one of them creates everything, for the others it returns None. Raises
    `Invalid` for settings that contradict the database and `Unavailable` for an incomplete copy.
    """
    first_start = None
    await begin_use(engine)
    if await records.read(engine, FIRST) is None:
        first_start = await _first_start(engine, config, clock)
    # A whole copy may have arrived since. After this none can: the organisation is there, and the mark is not.
    await begin_use(engine)
    organisation = await first_organisation(engine)
    if config.organisation_id not in (None, organisation):
        raise Invalid(
            f"the database belongs to organisation {organisation}, but the setting organisation_id says "
            f"{config.organisation_id}: remove the setting or use another data directory"
        )
    if config.admin_key is not None:
        await set_admin_key(engine, organisation, config.admin_key, clock)
    return first_start


async def _first_start(engine: Engine, config: Config, clock: Clock) -> FirstStart | None:
    organisation = config.organisation_id or str(ULID())
    # The store comes first: whoever sees the organisation finds it complete.
    own = msgspec.structs.replace(stores.unmade(organisation, DEFAULT_STORE), id=str(ULID()), created_at=clock())
    store = await engine.create_space(own, [stores.by_name(organisation, DEFAULT_STORE)])
    mutations: list[Mutation] = [Set(FIRST, msgspec.json.encode(organisation))]
    secret = None
    if config.admin_key is None:
        secret = new_secret()
        mutations += addition(
            AccessKey(
                id=str(ULID()),
                organisation=organisation,
                role="owner",
                name="first owner",
                digest=digest_of(secret),
                created_at=clock(),
            )
        )
    # `kvasir copy` or `kvasir load` may have begun in the meantime, so the mark is checked again.
    outcome = await records.write(engine, mutations, (Check(FIRST, None), Check(COPY_MARK, None)))
    if isinstance(outcome, Commit):
        return FirstStart(organisation, store.id, secret)
    if outcome.key == COPY_MARK:
        # If another store has the alias, it is one that is being copied.
        await engine.end_space(own.id)
        raise incomplete()
    if config.organisation_id is None:
        # Another process was first, with an organisation of its own.
        await engine.end_space(store.id)
    return None
