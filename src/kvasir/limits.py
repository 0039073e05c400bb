"""Every bound a caller can meet, with its unit, and the checks of those the store keeps itself.

The documented defaults are in docs/limits.md, made from these rows. Each passes N and refuses N + 1.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kvasir.errors import Invalid, TooLarge

Bytes = Annotated[int, Meta(gt=0, description="bytes")]
Count = Annotated[int, Meta(gt=0, description="count")]
Seconds = Annotated[float, Meta(gt=0, description="seconds")]


class Limits(Struct, frozen=True, kw_only=True):
    """The bounds in force. Field comments are the documentation of the row (see `describe`)."""

    key_bytes: Bytes = 2_048
    value_bytes: Bytes = 1_048_576
    metadata_bytes: Bytes = 16_384
    batch_keys: Count = 1_000
    batch_answer_bytes: Bytes = 134_217_728
    body_bytes: Bytes = 33_554_432
    bodies_in_flight_bytes: Bytes = 268_435_456
    body_seconds: Seconds = 30.0
    connections: Count = 10_000
    json_depth: Count = 512
    page_entries: Count = 100
    store_name_characters: Count = 255
    queue_writes: Count = 10_000
    queue_bytes: Bytes = 268_435_456

    def check_key(self, key: bytes) -> None:
        """Raises `TooLarge` or `Invalid` unless this packed key may be stored."""
        if len(key) > self.key_bytes:
            raise TooLarge(f"the key is {len(key):,} bytes packed; at most {self.key_bytes:,} are allowed")
        if not key:
            raise Invalid("a key needs at least one part")

    def check_value(self, value: bytes) -> None:
        """Raises `TooLarge` unless a value of this many bytes of JSON may be stored."""
        if len(value) > self.value_bytes:
            raise TooLarge(f"the value is {len(value):,} bytes of JSON; at most {self.value_bytes:,} are allowed")

    def check_metadata(self, metadata: bytes) -> None:
        """Raises `TooLarge` unless metadata of this many bytes of JSON may be stored."""
        if len(metadata) > self.metadata_bytes:
            raise TooLarge(
                f"the metadata is {len(metadata):,} bytes of JSON; at most {self.metadata_bytes:,} are allowed"
            )


#: Row by row: what the bound is for. Together with the defaults above this makes docs/limits.md and the settings.
EXPLAINED: dict[str, str] = {
    "key_bytes": "Length of one key, packed (see key-encoding.md): the UTF-8 of its parts, two bytes more a part.",
    "value_bytes": "Length of one value as JSON text.",
    "metadata_bytes": "Length of one entry's metadata as JSON text.",
    "batch_keys": "Keys or entries in one batch request.",
    "batch_answer_bytes": "Sum of the values that one batch request reads; beyond it: too_large, ask for fewer keys.",
    "body_bytes": "Length of one HTTP request body.",
    "bodies_in_flight_bytes": "Sum of the HTTP bodies that one process holds at a time; beyond it: unavailable, retry.",
    "body_seconds": "Time a client may take to send one HTTP body.",
    "connections": "Open connections to one address of one process; further ones wait.",
    "json_depth": "Nesting of arrays and objects in a JSON text.",
    "page_entries": "Entries on one page of a Versori listing (the API allows no more than 100).",
    "store_name_characters": "Length of a store's name.",
    "queue_writes": "Writes that wait for the disk in one process; beyond it: unavailable, retry.",
    "queue_bytes": "Bytes of keys and values that wait for the disk in one process; beyond it: unavailable, retry.",
}
