"""What one credential may let another do: never more than it may do itself."""

from __future__ import annotations

from collections.abc import Iterable

from kvasir.control.access_keys import ROLES, AccessKey
from kvasir.errors import Forbidden
from kvasir.keys import prefix_range
from kvasir.model import Principal
from kvasir.store.permissions import MANAGERS, require


def check_role(maker: Principal, role: str) -> None:
    """Raises `Forbidden` unless the maker administers credentials and this role is no higher than its own."""
    require(maker, MANAGERS)
    if role in ROLES and ROLES.index(role) < ROLES.index(maker.role):
        raise Forbidden(f"the role {maker.role!r} does not allow this for a credential with the role {role!r}")


def check_spaces(maker: Principal, spaces: Iterable[str] | None) -> None:
    """Raises `Forbidden` for a scope (ULIDs; None: all spaces) wider than the maker's."""
    if maker.spaces is not None and (spaces is None or not maker.spaces.issuperset(spaces)):
        raise Forbidden("this access key is limited to certain spaces, so it can open no others to another credential")


def check_end(maker: Principal, expires_at: int | None) -> None:
    """Raises `Forbidden` for a credential that would outlive its maker; None: it never ends."""
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        raise Forbidden("this credential ends, so what it makes must not end later")


def check_key(maker: Principal, key: AccessKey) -> None:
    """Raises `Forbidden` if an access key could do more, or longer, than its maker."""
    check_role(maker, key.role)
    check_spaces(maker, key.spaces)
    check_end(maker, key.expires_at)
    if maker.keys is not None:
        wanted = prefix_range(key.prefix) if key.prefix else None
        if wanted is None or not (maker.keys.start <= wanted.start and wanted.end <= maker.keys.end):
            raise Forbidden("this access key is limited to a key prefix, so it can open no other to another credential")
