"""Every bound that a caller can meet, one row each; and the checks of those that the store enforces itself.

A row is a field with its default, unit, meaning and consequence. The settings, docs/limits.md and the values in force
all come from it, see `kvasir.config.table`. Each limit allows N and refuses N + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kvasir.errors import Invalid, TooLarge

#: Consequences that many rows share: codes of docs/errors.md.
TOO_LARGE, INVALID, UNAVAILABLE = "`too_large`", "`invalid`", "`unavailable`: try again"

#: What a body may have besides keys, values and metadata: names of members, options, blanks.
BODY_SLACK_BYTES = 4_096


#: The bounds of this process whose refusals are counted, by their settings (docs/limits.md) without "limit-".
BOUNDS = (
    "answers_in_flight_bytes",
    "bodies_in_flight_bytes",
    "connection_answer_bytes",
    "connections",
    "credential_exports",
    "credential_imports",
    "credential_watches",
    "key_bytes",
    "metadata_bytes",
    "nemesis_all_unread_bytes",
    "nemesis_connections",
    "nemesis_unfinished_bytes",
    "nemesis_unread_bytes",
    "postgres_connections",
    "queue_bytes",
    "queue_writes",
    "snapshots",
    "unread_seconds",
    "value_bytes",
    "watch_changes",
    "watches",
)

#: How often each of them has refused somebody, or made somebody wait.
refusals = dict.fromkeys(BOUNDS, 0)


def refused(bound: str) -> None:
    """Count a refusal of one of the `BOUNDS`."""
    refusals[bound] += 1


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a row says besides its default."""

    unit: str
    #: What is limited, as the beginning of a sentence
    what: str
    #: What happens beyond it
    beyond: str
    #: The values that an operator may choose, for whole numbers. Seconds go up to a day.
    least: int
    most: int


def row(default: float, unit: str, what: str, beyond: str, *, least: int = 1, most: int = 2**53) -> Any:
    """A field: see `Limit`."""
    return dataclasses.field(default=default, metadata={"limit": Limit(unit, what, beyond, least, most)})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of the store, the engines and the HTTP listener, for every API alike."""

    key_bytes: int = row(
        2_048,
        "bytes",
        "Size of one key, packed (see key-encoding.md): the UTF-8 of its parts, plus two bytes a part",
        TOO_LARGE,
    )
    value_bytes: int = row(1_048_576, "bytes", "Size of one value, as JSON text", TOO_LARGE)
    metadata_bytes: int = row(16_384, "bytes", "Size of the metadata of one entry, as JSON text", TOO_LARGE)
    batch_keys: int = row(
        1_000,
        "count",
        "Number of keys or entries in one batch request",
        "Versori: `too_large` with HTTP 400; Voximplant: error 497",
    )
    batch_answer_bytes: int = row(
        33_554_432, "bytes", "Total size of the values that one batch request reads", "`too_large`: ask for fewer keys"
    )
    body_bytes: int = row(
        16_777_216, "bytes", "Size of one HTTP request body, but of an import; most operations allow less", TOO_LARGE
    )
    bodies_in_flight_bytes: int = row(
        134_217_728, "bytes", "Total size of the HTTP request bodies in the memory of one process", UNAVAILABLE
    )
    answers_in_flight_bytes: int = row(
        134_217_728,
        "bytes",
        "Total size of the answers above 64 KiB of one process that its clients have not read yet",
        UNAVAILABLE,
    )
    connection_answer_bytes: int = row(
        67_108_864,
        "bytes",
        "Total size of such answers on the streams of one connection of HTTP/2",
        UNAVAILABLE,
    )
    body_seconds: float = row(
        30.0, "seconds", "Time to receive one HTTP request body; of an import, the next piece of it", INVALID
    )
    connections: int = row(10_000, "count", "Number of open HTTP connections to one process", "further ones wait")
    head_bytes: int = row(65_536, "bytes", "Size of the head of one HTTP request", "HTTP 431", least=1_024, most=2**20)
    head_lines: int = row(100, "count", "Number of header lines of one HTTP request", "HTTP 431")
    target_bytes: int = row(
        32_768, "bytes", "Length of the path and query of one HTTP request", "HTTP 414", most=65_535
    )
    head_seconds: float = row(30.0, "seconds", "Time to receive the head of one HTTP request", "HTTP 408")
    idle_seconds: float = row(
        120.0, "seconds", "Time an HTTP connection may stay open without a request", "the connection is closed"
    )
    unread_seconds: float = row(
        30.0, "seconds", "Time in which an HTTP client must read some of what it is sent", "the connection is cut"
    )
    json_depth: int = row(
        512, "count", "Nesting depth of arrays and objects in a JSON text", "`invalid`; NemesisDB: status 3"
    )
    json_containers: int = row(
        100_000, "count", "Number of arrays and objects in a JSON text", "`too_large`; NemesisDB: status 42"
    )
    page_bytes: int = row(
        4_194_304,
        "bytes",
        "Total size of the keys, values and metadata on one page of a listing, unless it is a single entry",
        "the page ends, and its cursor goes on; Voximplant: error 101, ask for fewer by `count`",
    )
    page_entries: int = row(
        100,
        "count",
        "Number of entries on one page of a Versori listing; the API itself allows no more than 100",
        INVALID,
    )
    store_name_characters: int = row(
        255, "characters", "Length of the name of a store", "`invalid`; NemesisDB: status 42"
    )
    queue_writes: int = row(10_000, "count", "Number of writes of one process that wait for the disk", UNAVAILABLE)
    queue_bytes: int = row(
        268_435_456, "bytes", "Total size of the keys and values of one process that wait for the disk", UNAVAILABLE
    )
    watches: int = row(10_000, "count", "Number of watches in one process", UNAVAILABLE)
    watch_changes: int = row(
        1_000,
        "count",
        "Number of changed keys that one watch has not been told of yet",
        "the watch is told that it has missed something",
    )
    watch_bytes: int = row(
        2_097_152,
        "bytes",
        "Total size of the changed keys and values that one watch has not been told of yet",
        "the watch is told that it has missed something",
    )
    credential_watches: int = row(
        1_000, "count", "Number of watches of `/v1` with one credential in one process", UNAVAILABLE
    )
    credential_exports: int = row(2, "count", "Number of exports with one credential in one process", UNAVAILABLE)
    credential_imports: int = row(2, "count", "Number of imports with one credential in one process", UNAVAILABLE)
    snapshots: int = row(4, "count", "Number of snapshots that one process holds for exports", UNAVAILABLE)
    snapshot_seconds: float = row(
        600.0, "seconds", "Time that one export may hold its snapshot of the database", "the export ends incomplete"
    )
    snapshot_log_bytes: int = row(
        1_073_741_824,
        "bytes",
        "Size to which the write-ahead log of SQLite may grow while an export holds its snapshot",
        "the export ends incomplete",
    )

    # A character of a key has at most six bytes of JSON text (an escape), and a part at least two bytes packed and
    # three of JSON text (an empty string and a comma). In a batch, escapes of what is not ASCII count, three for one.

    @property
    def key_text_bytes(self) -> int:
        """Size of one key as a JSON array."""
        return 6 * self.key_bytes + BODY_SLACK_BYTES

    @property
    def batch_key_text_bytes(self) -> int:
        """Size of a key as a JSON array in a batch, on average."""
        return 3 * self.key_bytes

    @property
    def set_body_bytes(self) -> int:
        """Size of a body with one value and its options."""
        return min(self.body_bytes, self.value_bytes + self.metadata_bytes + BODY_SLACK_BYTES)

    @property
    def query_body_bytes(self) -> int:
        """Size of a body without values: a key, a filter by metadata, options."""
        return min(self.body_bytes, 6 * self.key_bytes + self.metadata_bytes + BODY_SLACK_BYTES)

    @property
    def keys_body_bytes(self) -> int:
        """Size of a body with the keys of a batch."""
        return min(self.body_bytes, self.batch_keys * self.batch_key_text_bytes + self.query_body_bytes)

    @property
    def batch_body_bytes(self) -> int:
        """Size of a body with the entries of a batch."""
        return min(self.body_bytes, self.batch_keys * self.entry_text_bytes + BODY_SLACK_BYTES)

    @property
    def entry_text_bytes(self) -> int:
        """Size of one entry of a batch: its key, its value and its options."""
        return self.key_text_bytes + self.value_bytes + self.metadata_bytes + BODY_SLACK_BYTES

    def check_key(self, key: bytes, index: int = 0) -> None:
        """Raises `TooLarge` with this index, or `Invalid`, unless the packed key may be stored."""
        if len(key) > self.key_bytes:
            refused("key_bytes")
            message = f"the key is {len(key):,} bytes packed; at most {self.key_bytes:,} are allowed"
            raise TooLarge(message, subject="key", index=index)
        if not key:
            raise Invalid("a key needs at least one part")

    def check_keys(self, keys: Sequence[bytes]) -> None:
        """Raises what `check_key` does for the first key that may not be stored."""
        if keys and (max(map(len, keys)) > self.key_bytes or not all(keys)):
            for index, key in enumerate(keys):
                self.check_key(key, index)

    def check_value(self, value: bytes, index: int = 0) -> None:
        """Raises `TooLarge` with this index unless a value of this many bytes of JSON may be stored."""
        if len(value) > self.value_bytes:
            refused("value_bytes")
            message = f"the value is {len(value):,} bytes of JSON; at most {self.value_bytes:,} are allowed"
            raise TooLarge(message, subject="value", index=index)

    def check_metadata(self, metadata: bytes, index: int = 0) -> None:
        """Raises `TooLarge` with this index unless metadata of this many bytes of JSON may be stored."""
        if len(metadata) > self.metadata_bytes:
            refused("metadata_bytes")
            message = f"the metadata is {len(metadata):,} bytes of JSON; at most {self.metadata_bytes:,} are allowed"
            raise TooLarge(message, subject="metadata", index=index)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WebSocketLimits:
    """The limits of the WebSocket listener, of one connection unless a row says otherwise."""

    max_payload: int = row(
        1_048_576,
        "bytes",
        "Size of one message, all its fragments together; the default of NemesisDB was 1,024",
        "the connection is closed with 1009",
        least=64,
        most=2**30,
    )
    connections: int = row(
        20_000,
        "count",
        "Number of open connections to one process; those before the upgrade may be a sixteenth more with them",
        "HTTP 503: try again later; those before the upgrade are closed",
    )
    in_flight: int = row(
        1_024,
        "count",
        "Number of messages of one connection that are not answered yet",
        "nothing more is read until half of them are answered",
    )
    in_flight_bytes: int = row(
        2_097_152,
        "bytes",
        "Size of what has come on one connection since all its messages were answered",
        "nothing more is read until all of them are answered",
    )
    unread_bytes: int = row(
        16_777_216,
        "bytes",
        "Total size of the replies that the client of one connection has not read yet",
        "the connection is closed with 1013",
    )
    all_unread_bytes: int = row(
        134_217_728,
        "bytes",
        "Total size of the unread replies of all connections to one process",
        "the connection that goes beyond it is closed with 1013",
    )
    unread_seconds: float = row(
        30.0, "seconds", "Time in which a client must read some of what it is sent", "the connection is cut"
    )
    unfinished_bytes: int = row(
        134_217_728,
        "bytes",
        "Total size of the incomplete messages of all connections to one process",
        "the connection that goes beyond it is closed with 1013",
    )
    handshake_seconds: float = row(
        10.0,
        "seconds",
        "Time to receive the upgrade request, and before that for the handshake of TLS",
        "the connection is closed",
    )
    message_seconds: float = row(
        30.0, "seconds", "Time from the first byte of a message to its last", "the connection is closed with 1008"
    )
    ping_seconds: float = row(164.0, "seconds", "Time without anything from a client", "a ping is sent to it")
    idle_seconds: float = row(
        180.0,
        "seconds",
        "Time without anything from a client, even an answer to the ping",
        "the connection is closed with 1001",
    )

    @property
    def accepted(self) -> int:
        """Connections that have a file: with those that have not asked for the upgrade yet, or are being refused it."""
        return self.connections + max(16, self.connections // 16)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NemesisLimits:
    """The limits of the NemesisDB commands of one connection."""

    sessions_per_second: int = row(
        1_000,
        "count",
        "Number of sessions that SH_NEW creates on one connection within one second",
        "status 103: try again",
    )
    reply_bytes: int = row(8_388_608, "bytes", "Total size of the values in one reply", "status 42: ask for fewer keys")
    path_steps: int = row(
        1_000_000, "count", "Number of steps of one KV_FIND or KV_UPDATE", "status 42: search fewer keys"
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VoximplantLimits:
    """The limits of the Voximplant API. The defaults are its own where its documentation names them."""

    key_characters: int = row(200, "characters", "Length of one key", "error 477", most=1_000)
    value_characters: int = row(2_000, "characters", "Length of one value", "error 477", most=1_000_000)
    ttl_maximum_seconds: int = row(
        7_776_000, "seconds", "Time to live of one item; the default is 90 days", "error 497", least=0, most=10**10
    )
    page_maximum: int = row(50, "count", "Number of items in one list", "the list has no more", most=1_000)
    form_bytes: int = row(
        65_536,
        "bytes",
        "Size of one urlencoded or multipart body; longer values need 12 bytes a character, plus 4,096",
        "error 101",
        least=1_024,
        most=2**30,
    )
    json_bytes: int = row(
        262_144,
        "bytes",
        "Size of one JSON body; the bulk methods need more than a form",
        "error 101",
        least=1_024,
        most=2**30,
    )
