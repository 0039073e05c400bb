"""The nouns of the store: frozen values without behaviour, shared by every layer.

Times are Unix milliseconds. A key is `bytes`, packed by `kvasir.keys`; a value is JSON text exactly as it came in.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

from msgspec import Struct, field

#: Number of the space that holds Kvasir's own records (access keys, organisations). Every write to it moves the epoch.
SYSTEM_SPACE = 1

#: (kind, organisation ULID or "", handle), for example ("store", "01J…", "default") or ("session-token", "", "1234").
Alias = tuple[str, str, str]


class Space(Struct, frozen=True):
    """A private keyspace: a store, an application or a session, reached by its ULID or by an alias."""

    id: str
    #: The engine's own number of the space: never reused, meaningless outside the database.
    number: int
    organisation: str
    #: "system", "store", "application" or "session"
    kind: str
    name: str
    created_at: int
    #: From this millisecond on the space and all its entries do not exist; None: it lives until it is ended.
    expires_at: int | None = None
    #: All keys are cleared every so many milliseconds, counted from `created_at`; None: never.
    #: The store sees to it, by letting no entry outlive its period.
    clear_every: int | None = None
    #: JSON object text with facts that only one dialect needs (a session's token, an application's number).
    attributes: bytes = b"{}"


class KeyRange(Struct, frozen=True):
    """All packed keys with start <= key < end."""

    start: bytes
    end: bytes


class Entry(Struct, frozen=True, gc=False):
    """A key with its value, as one committed snapshot shows it."""

    key: bytes
    #: JSON text, byte for byte as it was set; b"" in a listing with `values=False`
    value: bytes
    #: The number behind the 20 hex digits (see `kvasir.keys.versionstamp_text`).
    versionstamp: int
    #: Place in creation order within the space; kept when the value is replaced.
    sequence: int
    created_at: int
    expires_at: int | None = None
    #: Milliseconds by which reading the entry extends its life, while it has an end; None: reading does not.
    refresh: int | None = None
    #: JSON object text, or None
    metadata: bytes | None = None

    @property
    def slides(self) -> bool:
        """Whether reading extends its life. A touch may have taken the end away, and may give it one again."""
        return self.refresh is not None and self.expires_at is not None


class Joined(Struct, frozen=True, gc=False):
    """Entries column by column, which costs less than an object each.

    Between `keys`, which are packed, there is DEL, which is in none of them; between `values` RS (1E), which is in no
    JSON. `facts`, with FF between them: the decimal `created_at` of each and, unless all three are None, `expires_at`,
    `refresh` and `metadata`, with commas between them and nothing for None. `versionstamps`: decimal, with commas.
    """

    count: int
    keys: bytes
    values: bytes
    facts: bytes
    versionstamps: bytes


class Check(Struct, frozen=True):
    """Condition of a write: the key has exactly this versionstamp, or (None) is absent. Expired means absent."""

    key: bytes
    versionstamp: int | None


class Present(Struct, frozen=True):
    """Condition of a write: the key exists, whatever its versionstamp."""

    key: bytes


class Set(Struct, frozen=True):
    """Replace value, metadata and expiry of a key as one. At most one of `ttl` and `expires_at`."""

    key: bytes
    value: bytes
    metadata: bytes | None = None
    #: Milliseconds of life from the moment of the commit, at least 1
    ttl: int | None = None
    expires_at: int | None = None
    #: Whether reading extends the life by its original length. Means nothing without an expiry.
    refresh: bool = False
    #: Leave expiry and refresh of a living entry as they are at the commit; those given here are for a new entry only.
    keep_expiry: bool = False
    #: The same for its metadata.
    keep_metadata: bool = False


class Delete(Struct, frozen=True):
    """Remove one key. Removing an absent key is not a failure."""

    key: bytes


class DeleteRange(Struct, frozen=True):
    """Remove every key in the range; None: every key of the space."""

    range: KeyRange | None
    #: A condition of the whole write: that the range has exactly so many living entries before any of its mutations.
    expect: int | None = None


class Touch(Struct, frozen=True):
    """Change when a living key expires and nothing else: neither its versionstamp nor its value.

    With `extend`, an expiry earlier than the present one changes nothing.
    """

    key: bytes
    expires_at: int | None
    extend: bool = False


class Increment(Struct, frozen=True):
    """Add to the integer that a key holds at the commit; its expiry and metadata stay.

    An absent key counts from `initial`. If the value is no JSON integer (digits without fraction and exponent, perhaps
    with white space around), or the sum is beyond 63 bits and a sign, the outcome is `Invalid` with the code
    "not_incremented", and nothing of the write happens. The value becomes the digits of the sum.
    """

    key: bytes
    delta: int
    initial: int = 0
    #: Of a new entry
    expires_at: int | None = None


Condition = Check | Present
Mutation = Set | Delete | DeleteRange | Touch | Increment


class Write(Struct, frozen=True):
    """Conditions and mutations in one space: all take effect at one instant, or none."""

    space: int
    mutations: tuple[Mutation, ...]
    conditions: tuple[Condition, ...] = ()


class Commit(Struct, frozen=True):
    """The write happened and is durable."""

    versionstamp: int
    #: One number for each mutation: for a Set 1 if it replaced a living entry, else 0; for Delete, DeleteRange and
    #: Touch how many living entries were removed or touched (an `extend` that changes nothing counts as touched); for
    #: Increment the sum. A mutation sees the effects of those before it in the same write.
    counts: tuple[int, ...]


class Unmet(Struct, frozen=True):
    """A condition that was not met, and what was there instead at that instant."""

    #: The DeleteRange if its `expect` is the condition
    condition: Condition | DeleteRange
    #: The key's versionstamp; None: absent
    versionstamp: int | None = None
    #: How many living entries the range had
    count: int | None = None


class Conflict(Struct, frozen=True):
    """Conditions were not met; nothing changed."""

    #: All of them: the conditions in their order, then what mutations expect
    unmet: tuple[Unmet, ...]

    @property
    def key(self) -> bytes:
        """The key of the first one, or the start of its range."""
        condition = self.unmet[0].condition
        if isinstance(condition, DeleteRange):
            return condition.range.start if condition.range else b""
        return condition.key

    @property
    def versionstamp(self) -> int | None:
        """The versionstamp of that key at that instant; None: absent."""
        return self.unmet[0].versionstamp


class Query(Struct, frozen=True):
    """What a listing asks for: the living entries in `range` that pass every filter.

    `after` and `before` (at most one) are positions in `order`: sequences for "newest" and "oldest",
    packed keys for "key". They need not exist (any more). `before` asks for the page that ends just before it,
    in the same order.
    """

    range: KeyRange | None = None
    order: Literal["newest", "oldest", "key"] = "newest"
    #: None: no limit
    limit: int | None = None
    after: int | bytes | None = None
    before: int | bytes | None = None
    #: Entries to skip first (offset paging), in the direction of travel
    skip: int = 0
    #: Inclusive bounds of `created_at`
    created_from: int | None = None
    created_to: int | None = None
    #: JSON object text; an entry passes when its metadata contains it (see `kvasir.jsontext.contains`).
    metadata: bytes | None = None
    #: False leaves the values out, for listings of keys.
    values: bool = True
    #: The page ends before the entry with which its keys, values and metadata would have more bytes than this, but has
    #: one entry at least. `Store` fills it in.
    max_bytes: int | None = None


class Page(Struct, frozen=True):
    """A part of a listing, in its order."""

    entries: list[Entry]
    #: Whether more entries follow in the direction of travel (towards the front, for `before`).
    more: bool


class Principal(Struct, frozen=True):
    """Who makes a request: an authenticated credential, or a listener that needs none."""

    organisation: str
    #: "owner", "admin", "developer" (reads and writes), "viewer" (reads) or "none" (may do nothing)
    role: str
    #: What logs call the credential: an access key's id, a token's subject. Never a secret.
    name: str
    #: ULIDs of the only spaces it may use; None: all of the organisation
    spaces: frozenset[str] | None = None
    #: The only keys it may use; None: all
    keys: KeyRange | None = None
    expires_at: int | None = None


class Child(Struct, frozen=True):
    """One next part below a prefix."""

    #: The prefix and this part, packed
    key: bytes
    #: Whether the key itself has an entry
    entry: bool
    #: Whether there are keys below it
    below: bool


class Children(Struct, frozen=True):
    """Next parts below a prefix, in key order."""

    children: list[Child]
    #: What to pass as `after` for those that follow; None: there are none. A page may be short, even empty, and yet
    #: have a `next`, where many expired entries lie that await the sweep.
    next: bytes | None


class Change(Struct, frozen=True):
    """What a commit did to a key or a range, with the state that followed."""

    #: "set": the key has the entry. "delete": it has none. "expiry": only the life of the entry has changed.
    #: "delete_range": all keys of the range were removed.
    kind: Literal["set", "delete", "expiry", "delete_range"]
    #: Of the last commit that it tells of; of a set, the one that set the entry, whose life may be newer. The end of a
    #: life is no change.
    versionstamp: int
    key: bytes
    #: As it was when it was read, perhaps newer than `versionstamp`: then another change follows
    entry: Entry | None = None
    #: The end of the range that begins with `key`
    end: bytes | None = None


class Changes(Struct, frozen=True):
    """The next that a watch tells."""

    #: In the order of their versionstamps, the newest state of each key. Some keys may be told of that were not asked
    #: for: what a range deletion removed is told as the part of the range that is watched.
    changes: list[Change]
    #: Every change up to this versionstamp has been told with this.
    upto: int
    #: Changes before `upto` may have been missed: read again what you watch.
    resync: bool = False


class Stats(Struct, frozen=True):
    """What an engine reports to `/metrics` about the whole database."""

    spaces: int
    #: Entries on disk, including expired ones that await the sweep, and those of the system space
    entries: int
    database_bytes: int
    #: Those that await the sweep
    expired: int = 0
    #: Of the file system with the database: bytes free for us, and all; None: it is elsewhere, or there is none.
    disk_free_bytes: int | None = None
    disk_bytes: int | None = None
    #: Of a write-ahead log of our own, which counts among `database_bytes`; None: there is none
    log_bytes: int | None = None


#: Upper bounds of histograms of time, in seconds; and of those of writes per commit.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
GROUPS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Histogram(Struct):
    """How often which values were observed."""

    #: Upper bounds, inclusive
    bounds: tuple[float, ...]
    #: By the first bound that is not below the value; the last: beyond all of them
    counts: list[int]
    #: Of all values
    total: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Histogram:
        """An empty one."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, or the same value several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class WriterStats(Struct):
    """Counters of this process's engine, since its start."""

    queue_depth: int = 0
    failures: int = 0
    swept: int = 0
    #: Reads of entries that the cache answered, and those for which the database was asked
    cache_hits: int = 0
    cache_misses: int = 0
    #: Writes that shared a commit
    groups: Histogram = field(default_factory=lambda: Histogram.of(GROUPS))
    #: Seconds from the begin of a commit until it was durable
    commits: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    #: Seconds from a write's call until its commit began
    waits: Histogram = field(default_factory=lambda: Histogram.of(SECONDS))
    #: Whether a commit failed and the database has not been found sound since: writes are refused.
    broken: bool = False


class Gauges(Struct, frozen=True):
    """How things are in this process's engine."""

    #: Open watches
    watches: int = 0
    #: Connections to a database server: in use, idle, and how many there may be; 0: the engine needs none.
    connections_used: int = 0
    connections_idle: int = 0
    connections_most: int = 0
