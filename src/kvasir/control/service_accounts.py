"""Service accounts of the Voximplant API: public keys with their roles, as records of the system space.

Each organisation has one account with an integer id. A private key is generated here, handed out once and never kept.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import Struct

from kvasir import keys
from kvasir.control import records
from kvasir.engine import Clock, Engine
from kvasir.errors import Invalid, NotFound
from kvasir.model import SYSTEM_SPACE, Check, Conflict, Delete, Present, Principal, Set

_ACCOUNT = "voximplant-account"
_ACCOUNT_ID = "voximplant-account-id"
_KEY = "service-key"

#: Voximplant's role names -> ours, strongest first; "KV Reader" is Kvasir's own. A key acts with the first it has.
ROLES = {"Owner": "owner", "Admin": "admin", "Developer": "developer", "KV Reader": "viewer"}
#: Voximplant's other roles, which allow nothing here: their keys are recognised and every request is refused.
POWERLESS_ROLES = (
    "Support",
    "Supervisor",
    "CallList Manager",
    "Accountant",
    "Verification",
    "Scenarios",
    "User Manager Read",
    "User Manager Update",
    "ACD Manager Stats",
    "ACD Manager Management",
    "CallHistory",
    "Payer",
    "PayerNoVerify",
    "PhoneNumberManager",
    "CallsSMS",
    "MainAccount",
)


class ServiceAccount(Struct, frozen=True):
    """One key of an organisation's account."""

    key_id: str
    organisation: str
    account_id: int
    #: PEM, SubjectPublicKeyInfo
    public_key: str
    roles: tuple[str, ...]
    created_at: int
    #: ULIDs of the only applications it may use; None: all
    applications: tuple[str, ...] | None = None
    description: str = ""


class Credentials(Struct, frozen=True):
    """The credentials.json that the official clients read: shown once."""

    account_email: str
    account_id: int
    key_id: str
    #: PEM, PKCS#8: the only form that every official client reads
    private_key: str


_record = msgspec.json.Decoder(ServiceAccount)


def principal(account: ServiceAccount) -> Principal:
    """What a token of this key may do."""
    role = next((ours for theirs, ours in ROLES.items() if theirs in account.roles), "none")
    scope = None if account.applications is None else frozenset(account.applications)
    return Principal(account.organisation, role, account.key_id, scope)


async def find(engine: Engine, key_id: str) -> ServiceAccount | None:
    """The account with this key."""
    try:
        key = keys.pack((_KEY, key_id))
    except Invalid:
        return None
    entry = await records.read(engine, key)
    return None if entry is None else _record.decode(entry.value)


def new_private_key() -> RSAPrivateKey:
    """A key for tokens signed with RS256. It takes a tenth of a second or a few, and lets other threads run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


async def create(
    engine: Engine,
    clock: Clock,
    organisation: str,
    roles: Sequence[str],
    applications: Sequence[str] | None = None,
    description: str = "",
    private: RSAPrivateKey | None = None,
) -> Credentials:
    """Create a key with these roles, made here if none is given. Raises `Invalid` for an unknown role."""
    if unknown := [role for role in roles if role not in ROLES and role not in POWERLESS_ROLES]:
        raise Invalid(f"there is no role {unknown[0][:100]!r}; the roles are: {', '.join((*ROLES, *POWERLESS_ROLES))}")
    account_id = await account_of(engine, organisation)
    if private is None:
        private = await asyncio.to_thread(new_private_key)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    account = ServiceAccount(
        key_id=str(uuid.uuid4()),
        organisation=organisation,
        account_id=account_id,
        public_key=public.decode(),
        roles=tuple(roles),
        created_at=clock(),
        applications=None if applications is None else tuple(applications),
        description=description,
    )
    key = keys.pack((_KEY, account.key_id))
    await records.write(engine, [Set(key, msgspec.json.encode(account))], [Check(key, None)])
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(f"account-{account_id}@kvasir.invalid", account_id, account.key_id, secret.decode())


async def accounts(engine: Engine, organisation: str) -> list[ServiceAccount]:
    """All keys of an organisation, oldest first."""
    found = [_record.decode(entry.value) for entry in await records.list_kind(engine, _KEY)]
    return [account for account in found if account.organisation == organisation]


async def revoke(engine: Engine, key_id: str) -> None:
    """Remove a key; its tokens stop working at once, in every process. Raises `NotFound`."""
    key = keys.pack((_KEY, key_id))
    if isinstance(await records.write(engine, [Delete(key)], [Present(key)]), Conflict):
        raise NotFound(f"there is no service account with the key {key_id}; `kvasir service-account list` shows them")


async def account_of(engine: Engine, organisation: str) -> int:
    """The account id of an organisation, allotted when it is first asked for: 1, 2, 3 …"""
    key = keys.pack((_ACCOUNT, organisation))
    while True:
        if (entry := await records.read(engine, key)) is not None:
            return msgspec.json.decode(entry.value, type=int)
        taken = await engine.count(SYSTEM_SPACE, keys.prefix_range([_ACCOUNT_ID]))
        by_id = keys.pack((_ACCOUNT_ID, str(taken + 1)))
        mutations = (Set(key, str(taken + 1).encode()), Set(by_id, msgspec.json.encode(organisation)))
        # Two processes may do this at once: the conditions let one of them through, and the other tries again.
        await records.write(engine, mutations, (Check(key, None), Check(by_id, None)))
