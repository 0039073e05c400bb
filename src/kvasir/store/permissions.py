"""What a principal may do: its role and its key prefix. Its organisation and its spaces are the store's business."""

from __future__ import annotations

from kvasir.errors import Forbidden
from kvasir.model import KeyRange, Principal

READERS = frozenset({"owner", "admin", "developer", "viewer"})
WRITERS = frozenset({"owner", "admin", "developer"})
MANAGERS = frozenset({"owner", "admin"})


def require(principal: Principal, roles: frozenset[str]) -> None:
    """Raises `Forbidden` unless the principal has one of these roles."""
    if principal.role not in roles:
        raise forbidden(principal, roles)


def forbidden(principal: Principal, roles: frozenset[str]) -> Forbidden:
    """The failure of a principal that has none of these roles."""
    return Forbidden(f"the role {principal.role!r} does not allow this; it takes one of: {', '.join(sorted(roles))}")


def confine(principal: Principal, asked: KeyRange | None) -> None:
    """Raises `Forbidden` unless the principal may use all these keys; None: every key of a space."""
    allowed = principal.keys
    if allowed is None:
        return
    if asked is None or not (allowed.start <= asked.start and asked.end <= allowed.end):
        raise Forbidden("this access key is limited to a key prefix; ask for keys under that prefix only")


def only(key: bytes) -> KeyRange:
    """The range of one key."""
    return KeyRange(key, key + b"\x00")
