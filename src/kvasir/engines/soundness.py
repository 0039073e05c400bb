"""What must hold for every entry of a sound database, and how many faults a check lists. Reads no database itself."""

from __future__ import annotations

import msgspec

from kvasir import keys
from kvasir.errors import KvasirError

#: Faults listed before the check only says that there are more.
MAX_FAULTS = 100


def list_fault(faults: list[str], fault: str) -> bool:
    """Add a fault to the list. False: the list is full now, and says so; look no further."""
    faults.append(fault)
    if len(faults) < MAX_FAULTS:
        return True
    faults.append("there may be more")
    return False


def entry_fault(key: bytes, value: bytes, metadata: bytes | None) -> str | None:
    """What is wrong with these columns of an entry; None if they are sound."""
    try:
        if keys.pack(keys.unpack(key)) != key:
            return "its key is not in packed form"
    except (ValueError, KvasirError):
        return "its key is not in packed form"
    try:
        msgspec.json.decode(value)
        if metadata is not None and not isinstance(msgspec.json.decode(metadata), dict):
            return "its metadata is not a JSON object"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "its value or metadata is not valid JSON"
    return None
