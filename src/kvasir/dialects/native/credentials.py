"""Access keys and service accounts: listed, made and revoked by owners and admins, none beyond its maker."""

from __future__ import annotations

from typing import Any

from kvasir.control import access_keys, delegation, service_accounts
from kvasir.control.access_keys import AccessKey
from kvasir.control.service_accounts import ServiceAccount
from kvasir.dialects.http import Response
from kvasir.dialects.native import atomic, bodies, durations, entries, parameters, rendering
from kvasir.dialects.native.bodies import blame
from kvasir.dialects.native.calls import Call, Services
from kvasir.errors import Invalid, NotFound
from kvasir.keys import pack
from kvasir.store.permissions import MANAGERS, require

# -- access keys ------------------------------------------------------------------------------------------


async def list_keys(services: Services, call: Call) -> Response:
    """All of the organisation, oldest first, expired ones too. No secret is kept that could be shown."""
    require(call.principal, MANAGERS)
    keys = await access_keys.list_keys(services.engine, call.principal.organisation)
    return call.answer(rendering.document(keys=[key_members(key) for key in keys]))


async def create_key(services: Services, call: Call) -> Response:
    """The secret is in this answer, and nowhere else."""
    require(call.principal, MANAGERS)
    limits = services.store.limits
    asked = await bodies.read(await call.request.body(limits.query_body_bytes), bodies.NewKey, limits)
    now = services.auth.clock()
    ttl = None if asked.ttl is None else atomic.parsed(durations.parse, asked.ttl, "", "ttl")
    expires_at = None
    if asked.expires_at is not None:
        expires_at = atomic.parsed(parameters.timestamp, asked.expires_at, "", "expires_at")
    entries.check_life(ttl, expires_at, False, now)
    if asked.prefix is not None:
        if not asked.prefix:
            raise blame("", "prefix", "must have at least one part; leave it out for any key")
        limits.check_key(pack(asked.prefix))
    secret = access_keys.new_secret()
    key = AccessKey(
        id=services.store.new_id(),
        organisation=call.principal.organisation,
        role=asked.role,
        name=asked.name,
        digest=access_keys.digest_of(secret),
        created_at=now,
        spaces=await _spaces(services, call, asked.spaces, "spaces"),
        prefix=None if asked.prefix is None else tuple(asked.prefix),
        expires_at=expires_at if ttl is None else now + ttl,
    )
    delegation.check_key(call.principal, key)
    await access_keys.create_key(services.engine, key)
    return call.answer(rendering.json(key_members(key) | {"key": secret}), 201, (("Location", f"/v1/keys/{key.id}"),))


async def revoke_key(services: Services, call: Call) -> Response:
    """It is refused from now on, by every process. Whoever has a key may give it up."""
    own = await services.auth.access_key(call.request.header("authorization"))
    if own is not None and own.id in (call.id, call.id.upper()):
        await access_keys.revoke_key(services.engine, own.id)
        return call.answer(b"", 204)
    require(call.principal, MANAGERS)
    keys = await access_keys.list_keys(services.engine, call.principal.organisation)
    key = next((key for key in keys if key.id in (call.id, call.id.upper())), None)
    if key is None:
        raise NotFound("there is no access key with this id")
    delegation.check_role(call.principal, key.role)
    await access_keys.revoke_key(services.engine, key.id)
    return call.answer(b"", 204)


def key_members(key: AccessKey) -> dict[str, Any]:
    """What may be seen of an access key."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "spaces": key.spaces,
        "prefix": key.prefix,
        "created_at": rendering.instant(key.created_at),
        "expires_at": rendering.instant(key.expires_at),
    }


# -- service accounts -------------------------------------------------------------------------------------


async def list_accounts(services: Services, call: Call) -> Response:
    """All of the organisation, oldest first."""
    require(call.principal, MANAGERS)
    accounts = await service_accounts.accounts(services.engine, call.principal.organisation)
    return call.answer(rendering.document(service_accounts=[_account_members(account) for account in accounts]))


async def create_account(services: Services, call: Call) -> Response:
    """The private key is in this answer, and nowhere else."""
    principal = call.principal
    require(principal, MANAGERS)
    limits = services.store.limits
    asked = await bodies.read(await call.request.body(limits.query_body_bytes), bodies.NewServiceAccount, limits)
    for role in asked.roles:
        delegation.check_role(principal, service_accounts.ROLES.get(role, "none"))
    applications = await _spaces(services, call, asked.applications, "applications", kind="application")
    delegation.check_spaces(principal, applications)
    delegation.check_end(principal, None)
    if principal.keys is not None:
        raise blame("", "roles", "cannot be given by this access key: it is limited to a key prefix, an account is not")
    made = await service_accounts.create(
        services.engine, services.auth.clock, principal.organisation, asked.roles, applications, asked.description
    )
    location = ("Location", f"/v1/service-accounts/{made.key_id}")
    return call.answer(rendering.json(made), 201, (location,))


async def revoke_account(services: Services, call: Call) -> Response:
    """Its tokens are refused from now on, by every process."""
    require(call.principal, MANAGERS)
    accounts = await service_accounts.accounts(services.engine, call.principal.organisation)
    account = next((account for account in accounts if account.key_id == call.id), None)
    if account is None:
        raise NotFound("there is no service account with this id")
    delegation.check_role(call.principal, service_accounts.principal(account).role)
    await service_accounts.revoke(services.engine, account.key_id)
    return call.answer(b"", 204)


def _account_members(account: ServiceAccount) -> dict[str, Any]:
    return {
        "id": account.key_id,
        "account_id": account.account_id,
        "roles": account.roles,
        "applications": account.applications,
        "description": account.description,
        "created_at": rendering.instant(account.created_at),
    }


async def _spaces(
    services: Services, call: Call, ids: list[str] | None, field: str, *, kind: str | None = None
) -> tuple[str, ...] | None:
    """ULIDs of spaces that are there. Raises `Invalid` for one that is not, or that the maker may not know of."""
    if ids is None:
        return None
    if not ids:
        raise blame("", field, "must name at least one; leave it out for all")
    found: list[str] = []
    for at, id in enumerate(ids):
        try:
            space = await services.store.open(call.principal, id.upper())
        except NotFound:
            space = None
        if space is None or kind not in (None, space.kind):
            what = f"is no {kind or 'space'}"
            raise Invalid(f"{field}[{at}] {what}", fields=((f"{field}[{at}]", what),))
        found.append(space.id)
    return tuple(found)
