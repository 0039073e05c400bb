"""The operations on the entries of one space, as steps: what is sent, and what the answers mean. Does no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from kvasir_client import spaces, watching
from kvasir_client.answers import Retries, exchange, read, read_text, told, unreadable
from kvasir_client.entries import Child, Committed, Entry, Loaded, Raw, Refusal, entries_in, entry_in
from kvasir_client.errors import ConditionNotMet, Invalid, KvasirError, NotFound, Unavailable
from kvasir_client.keys import Key, json_text, parts_of, prefix_of
from kvasir_client.times import Ttl, instant_text, ttl_text
from kvasir_client.transactions import Changes, committed, metadata_header, text_of
from kvasir_client.wire import JSON, NDJSON, Answer, Give, Lost, Open, Pause, Read, Request, Send, Steps, dumps, stamp

T = TypeVar("T")

Order = Literal["key", "newest", "oldest"]
Mode = Literal["replace", "keep", "fail"]
Keep = Literal["expiry", "metadata"]

#: The most entries that one page may have.
PAGE = 1_000
#: Metadata of more bytes than that goes in the body, not in a header.
METADATA_HEADER_BYTES = 4_096
#: Attempts of `update` before it gives up.
UPDATE_ATTEMPTS = 20
#: Seconds without a byte after which an export or import counts as lost.
SILENCE = 60.0

#: The last line of an export is shorter than this.
TAIL_BYTES = 4_000

#: What a header cannot hold.
_LINE_END = re.compile(rb"[\r\n]")

#: Stands for "not given" where None is a value.
MISSING: Any = type("MISSING", (), {"__repr__": lambda _: "MISSING"})()


class Operations:
    """The operations on one space. Each returns steps for a driver (see `wire`)."""

    def __init__(self, space: spaces.Reference, retries: Retries) -> None:
        self.space = space
        self.retries = retries

    # -- one key ----------------------------------------------------------------------------------------------

    def get(self, key: Key, *, extend: bool = True) -> Steps[Entry | None]:
        query = [("key", json_text(parts_of(key))), ("form", "entry")]
        if not extend:
            query.append(("extend", "false"))
        request = yield from self._request("GET", "entry", query)
        try:
            answer = yield from self._exchange(request)
        except NotFound as error:
            # Nothing else is an absent key: not a store that is gone, and not a path that the server does not know.
            if error.reason == NotFound.code:
                return None
            raise
        return read_text(answer, request, entry_in)

    def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        refresh: bool = False,
        metadata: dict[str, Any] | Raw | None = None,
        keep: Iterable[Keep] = (),
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
    ) -> Steps[str]:
        if if_absent + if_present + (if_version is not None) > 1:
            raise Invalid("if_absent, if_present and if_version are conditions of which a write can have one")
        kept = sorted(keep)
        in_header = "" if metadata is None else metadata_header(metadata)
        if len(in_header) > METADATA_HEADER_BYTES or (isinstance(metadata, Raw) and _LINE_END.search(metadata)):
            changes = Changes()
            if if_absent or if_present or if_version is not None:
                changes.check(key, None if if_absent else if_version, present=if_present)
            changes.set(key, value, ttl=ttl, expires_at=expires_at, refresh=refresh, metadata=metadata, keep=kept)
            return (yield from self.atomic(changes)).versionstamp
        query = [("key", json_text(parts_of(key)))]
        query += _life(ttl, expires_at, refresh=refresh)
        if kept:
            query.append(("keep", ",".join(kept)))
        headers = dict(JSON)
        if metadata is not None:
            headers["Kvasir-Metadata"] = in_header
        if if_absent:
            headers["If-None-Match"] = "*"
        elif if_present or if_version is not None:
            headers["If-Match"] = f'"{stamp(if_version)}"' if if_version is not None else "*"
        request = yield from self._request("PUT", "entry", query, headers, text_of(value))
        answer = yield from self._exchange(request)
        return _tag(answer, request)

    def delete(self, key: Key, *, if_version: str | None = None) -> Steps[bool]:
        headers = {} if if_version is None else {"If-Match": f'"{stamp(if_version)}"'}
        request = yield from self._request("DELETE", "entry", [("key", json_text(parts_of(key)))], headers, writes=True)
        answer = yield from self._exchange(request)
        return _count_header(answer, request) > 0

    def touch(
        self, key: Key, *, ttl: Ttl | None = None, expires_at: datetime | None = None, extend: bool = False
    ) -> Steps[bool]:
        changes = Changes()
        changes.touch(key, ttl=ttl, expires_at=expires_at, extend=extend)
        done = yield from self.atomic(changes)
        return bool(done.results[0])

    def increment(
        self,
        key: Key,
        by: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        if_present: bool = False,
    ) -> Steps[int]:
        changes = Changes()
        if if_present:
            changes.check(key, present=True)
        changes.increment(key, by, initial=initial, ttl=ttl, expires_at=expires_at)
        done = yield from self.atomic(changes)
        return int(done.results[0] or 0)

    def update(self, key: Key, change: Callable[[Any], T], *, default: Any = MISSING) -> Steps[T]:
        backoff = Retries(UPDATE_ATTEMPTS, 0.01)
        for attempt in range(1, UPDATE_ATTEMPTS + 1):
            entry = yield from self.get(key, extend=False)
            if entry is None and default is MISSING:
                raise NotFound("there is no such key to update; give a default to begin with")
            value = change(default if entry is None else entry.value)
            try:
                if entry is None:
                    yield from self.set(key, value, if_absent=True)
                else:
                    yield from self.set(key, value, if_version=entry.versionstamp, keep=("expiry", "metadata"))
            except ConditionNotMet:
                if attempt == UPDATE_ATTEMPTS:
                    raise
                yield Pause(min(backoff.pause(attempt), 0.5))
            else:
                return value
        raise AssertionError("the last attempt returns or raises")

    # -- many keys --------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Key], *, extend: bool = True) -> Steps[list[Entry | None]]:
        body = dumps({"keys": [parts_of(key) for key in keys]})
        path = yield from self._path("get")
        request = Request("POST", path, () if extend else (("extend", "false"),), JSON, body)
        answer = yield from self._exchange(request)
        return read_text(answer, request, lambda text: entries_in(text)[0])

    def atomic(self, changes: Changes) -> Steps[Committed]:
        path = yield from self._path("atomic")
        request = Request("POST", path, headers=JSON, body=changes.body(), writes=True)
        answer = yield from self._exchange(request)
        return read(answer, request, committed)

    def count(self, prefix: Key = ()) -> Steps[int]:
        request = yield from self._request("GET", "count", _under(prefix))
        answer = yield from self._exchange(request)
        return read(answer, request, lambda found: int(found["count"]))

    def delete_prefix(self, prefix: Key, *, expect: int | None = None, everything: bool = False) -> Steps[int]:
        parts = prefix_of(prefix)
        if not parts and not everything:
            raise Invalid("no prefix means every entry: say everything=True if you mean that")
        query = _under(parts)
        if expect is not None:
            query.append(("expect", str(expect)))
        request = yield from self._request("DELETE", "entries", query, writes=True)
        answer = yield from self._exchange(request)
        return _count_header(answer, request)

    def scan(
        self,
        prefix: Key = (),
        *,
        order: Order = "key",
        limit: int | None = None,
        values: bool = True,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Steps[None]:
        """Gives entries."""
        query = _under(prefix)
        query.append(("order", order))
        if not values:
            query.append(("values", "false"))
        if created_from is not None:
            query.append(("created_from", instant_text(created_from)))
        if created_to is not None:
            query.append(("created_to", instant_text(created_to, up=False)))
        if metadata is not None:
            query.append(("metadata", dumps(metadata).decode()))
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = [*query, ("limit", str(PAGE if left is None else min(PAGE, left)))]
            request = yield from self._request("GET", "entries", page + ([("cursor", cursor)] if cursor else []))
            answer = yield from self._exchange(request)
            entries, cursor = read_text(answer, request, entries_in)
            for entry in entries:
                yield Give(entry)
            if left is not None:
                left -= len(entries)
            if cursor is None:
                return

    def children(self, prefix: Key = (), *, limit: int | None = None) -> Steps[None]:
        """Gives children."""
        query = _under(prefix)
        after: str | None = None
        left = limit
        while left is None or left > 0:
            page = [*query, ("limit", str(PAGE if left is None else min(PAGE, left)))]
            if after is not None:
                page.append(("after", after))
            request = yield from self._request("GET", "children", page)
            answer = yield from self._exchange(request)
            children, after = read(answer, request, _children)
            for child in children:
                yield Give(child)
            if left is not None:
                left -= len(children)
            if after is None:
                return

    # -- the whole --------------------------------------------------------------------------------------------

    def export(self, prefix: Key = ()) -> Steps[None]:
        """Gives pieces of NDJSON. Raises `Unavailable` if the stream is cut: the last line tells."""
        request = yield from self._request("GET", "export", _under(prefix))
        answer = yield from self._exchange(request, send=Open(request, SILENCE))
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != NDJSON["Content-Type"]:
            raise unreadable(answer, request)
        tail = b""
        while True:
            try:
                piece: bytes | None = yield Read()
            except Lost:
                break
            if piece is None:
                break
            # The last line is short; what is before it has been given and is not needed here.
            tail = (tail + piece)[-TAIL_BYTES:]
            yield Give(piece)
        raise_unless_whole(tail)

    def load(
        self, pieces: Callable[[], Iterable[bytes]], *, mode: Mode = "replace", dry_run: bool = False
    ) -> Steps[Loaded]:
        query = [("mode", mode), *([("dry_run", "true")] if dry_run else [])]
        path = yield from self._path("import")
        request = Request("POST", path, tuple(query), NDJSON, pieces, writes=not dry_run)
        # Batches that are durable stay so when a later one fails: not even "unavailable" means that nothing happened.
        try:
            answer = yield from self._exchange(request, send=Send(request, SILENCE), retries=Retries(1))
        except KvasirError as error:
            done = error.details.get("imported") or {}
            if isinstance(done, dict) and done.get("lines"):
                error.args = (f"{error.message}; the import ended here, and lines up to {done['lines']} stay imported",)
                error.message = error.args[0]
            raise
        return read(answer, request, _loaded)

    def watch(self, prefix: Key, keys: Iterable[Key] | None) -> Steps[None]:
        """Gives events."""
        if keys is None:
            query = _under(prefix)
        else:
            query = [("key", json_text(parts_of(key))) for key in keys]
            if prefix_of(prefix) or not query:
                raise Invalid("watch either the keys below a prefix or some keys by name")
        request = yield from self._request("GET", "watch", query)
        try:
            yield from watching.watch(request, self.retries)
        except NotFound:
            self.space.forget()
            raise

    # -- what they share --------------------------------------------------------------------------------------

    def _path(self, what: str) -> Steps[str]:
        id = yield from self.space.resolve(self.retries)
        return f"/v1/spaces/{id}/{what}"

    def _request(
        self,
        method: str,
        what: str,
        query: Sequence[tuple[str, str]],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        writes: bool = False,
    ) -> Steps[Request]:
        path = yield from self._path(what)
        return Request(method, path, tuple(query), headers or {}, body, writes=writes or body is not None)

    def _exchange(
        self, request: Request, *, send: Open | Send | None = None, retries: Retries | None = None
    ) -> Steps[Answer]:
        try:
            return (yield from exchange(request, retries or self.retries, send=send))
        except NotFound as error:
            if error.reason == spaces.GONE:
                self.space.forget()
            raise


def _life(ttl: Ttl | None, expires_at: datetime | None, *, refresh: bool) -> list[tuple[str, str]]:
    if ttl is not None and expires_at is not None:
        raise Invalid("ttl and expires_at both say when the entry expires: give one of them")
    query: list[tuple[str, str]] = []
    if ttl is not None:
        query.append(("ttl", ttl_text(ttl)))
    if expires_at is not None:
        query.append(("expires_at", instant_text(expires_at)))
    if refresh:
        query.append(("refresh", "true"))
    return query


def _under(prefix: Key) -> list[tuple[str, str]]:
    parts = prefix_of(prefix)
    return [("prefix", json_text(parts))] if parts else [("all", "true")]


def _tag(answer: Answer, request: Request) -> str:
    """The versionstamp in the ETag of an answer."""
    tag = answer.headers.get("etag", "")
    if len(tag) < 3 or tag[0] != '"' or tag[-1] != '"':
        raise unreadable(answer, request)
    return tag[1:-1]


def _count_header(answer: Answer, request: Request) -> int:
    count = answer.headers.get("kvasir-count", "")
    if not count.isascii() or not count.isdigit() or len(count) > 18:
        raise unreadable(answer, request)
    return int(count)


def _children(found: Any) -> tuple[list[Child], str | None]:
    return [Child(each["part"], each["entry"], each["below"]) for each in found["children"]], found["next"]


def _loaded(found: Any) -> Loaded:
    refusals = tuple(Refusal(int(each["line"]), str(each["reason"])) for each in found["refusals"])
    whole, ignored = found.get("whole"), tuple(found.get("ignored") or ())
    return Loaded(int(found["set"]), int(found["kept"]), int(found["refused"]), refusals, whole, ignored)


def raise_unless_whole(tail: bytes) -> None:
    """Raises what an export says that it failed of, or `Unavailable` if it was cut; `tail` is how it ended."""
    try:
        last = json.loads(tail.rstrip(b"\n").rpartition(b"\n")[2])
        if "end" in last:
            return
        failure = told(json.dumps(last["error"]))
    except (ValueError, KeyError, TypeError):
        failure = Unavailable("the stream was cut")
    failure.message = f"the export is not whole: {failure.message}"
    failure.args = (failure.message,)
    raise failure


__all__ = ["MISSING", "Keep", "Mode", "Operations", "Order"]
