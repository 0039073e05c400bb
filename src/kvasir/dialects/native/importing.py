"""`import`: lines of JSON -> entries, durable batch by batch; what it refuses, passes over and stops at is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.dialects.http import Response
from kvasir.dialects.native import lines, problems, rendering
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.lines import Item
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.errors import Forbidden, Invalid, KvasirError, TooLarge
from kvasir.keys import unpack
from kvasir.model import Check, Commit, Present, Space, Write
from kvasir.store.permissions import WRITERS, confine, only, require

#: A batch ends once it has so many entries, or so many bytes of values.
BATCH_ENTRIES, BATCH_BYTES = 500, 1_048_576

#: Refused lines that are told one by one.
TOLD_REFUSALS = 100

Mode = Literal["replace", "keep", "fail"]


async def load(services: Services, call: Call) -> Response:
    """Counts of what was set, kept and refused."""
    require(call.principal, WRITERS)
    space = await call.space(services)
    work = _Import(services, call, space)
    limits = services.store.limits
    with services.slots.take(call.principal, "imports", limits.credential_imports):
        try:
            await work.run()
        except KvasirError as error:
            # What earlier batches wrote stays.
            name, id = call.operation.name, call.request.id
            return problems.failure(error, name, id, imported=work.report())
    return call.answer(rendering.json(work.report()))


class _Import:
    """One import: its lines so far, and the batch that is gathered."""

    def __init__(self, services: Services, call: Call, space: Space) -> None:
        self._services, self._call, self._space = services, call, space
        self._mode: Mode = call.query.get("mode", "replace")
        self._dry_run: bool = call.query.get("dry_run", False)
        self._batch: list[Item] = []
        self._numbers: list[int] = []
        self._keys: set[bytes] = set()
        self._bytes = 0
        self._line = self._set = self._kept = self._refused = self._written = 0
        self._refusals: list[dict[str, Any]] = []
        self._ignored: set[str] = set()
        #: What the last line of an export has told
        self._end: int | None = None

    def report(self) -> dict[str, Any]:
        """What has been done so far."""
        return {
            "set": self._set,
            "kept": self._kept,
            "refused": self._refused,
            "refusals": self._refusals,
            "ignored": sorted(self._ignored),
            # The last line whose batch is durable
            "lines": self._written,
            # Whether the number on the last line of an export is right; null without such a line
            "whole": None if self._end is None else self._end == self._entries,
            "dry_run": self._dry_run,
        }

    @property
    def _entries(self) -> int:
        return self._set + self._kept + self._refused

    async def run(self) -> None:
        """Take all lines."""
        async for line in self._lines():
            self._line += 1
            if self._line % BATCH_ENTRIES == 0:
                await asyncio.sleep(0)
            if line is None:
                self._refuse("the line is too long")
            elif line.strip():
                await self._take(line)
        await self._flush()
        self._written = self._line

    async def _lines(self) -> AsyncGenerator[bytes | None, None]:
        splitter = lines.Splitter(lines.longest(self._services.store.limits))
        while True:
            piece = await self._call.request.piece()
            for line in splitter.feed(piece):
                yield line
            if not piece:
                return

    async def _take(self, text: bytes) -> None:
        store = self._services.store
        now = store.now(self._space)
        if self._end is not None:
            self._refuse("it follows the line that ends an export")
            return
        try:
            if jsontext.is_light(text):
                item = lines.read(text, store.limits, now)
            else:
                item = await aside(lines.read, text, store.limits, now)
            if isinstance(item, Item):
                # A line of its own is refused, before it is in a batch with others.
                confine(self._call.principal, only(item.key))
        except KvasirError as refusal:
            self._refuse(refusal.message)
            return
        if isinstance(item, int):
            await self._flush()
            self._end = item
            return
        self._ignored |= item.ignored
        if self._mode == "fail" and item.key in self._keys:
            await self._flush()  # the second of two equal keys is one that exists
        self._keys.add(item.key)
        self._batch.append(item)
        self._numbers.append(self._line)
        self._bytes += len(text)
        if len(self._batch) >= BATCH_ENTRIES or self._bytes >= BATCH_BYTES:
            await self._flush()

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        if len(self._refusals) < TOLD_REFUSALS:
            self._refusals.append({"line": self._line, "reason": reason})

    async def _flush(self) -> None:
        if not self._batch:
            return
        await self._call.recheck(self._services)
        if self._mode == "fail":
            await self._write_all_or_stop()
        else:
            await self._write_each()
        self._written = self._numbers[-1]
        self._batch, self._numbers, self._keys, self._bytes = [], [], set(), 0

    async def _write_each(self) -> None:
        if self._dry_run and self._mode == "replace":
            self._set += len(self._batch)
            return
        number = self._space.number
        writes = [Write(number, item.mutations, self._conditions(item.key)) for item in self._batch]
        for at, outcome in enumerate(await self._services.store.write_many(self._call.principal, self._space, writes)):
            if isinstance(outcome, KvasirError):
                if not isinstance(outcome, Invalid | Forbidden | TooLarge):
                    raise outcome
                self._refuse_at(at, outcome.message)
            elif isinstance(outcome, Commit) or _is_absent(outcome.unmet[0].condition):
                self._set += 1
            else:
                self._kept += 1

    def _refuse_at(self, at: int, reason: str) -> None:
        line, self._line = self._line, self._numbers[at]
        self._refuse(reason)
        self._line = line

    def _conditions(self, key: bytes) -> tuple[Check | Present, ...]:
        # A dry run asks for what cannot be, and sees from what is not met whether the key exists.
        absent = (Check(key, None),) if self._mode != "replace" else ()
        return (*absent, Present(key)) if self._dry_run else absent

    async def _write_all_or_stop(self) -> None:
        store, principal, space = self._services.store, self._call.principal, self._space
        when = [Check(item.key, None) for item in self._batch]
        mutations = [mutation for item in self._batch for mutation in item.mutations]
        if self._dry_run:
            impossible = Present(self._batch[0].key)
            outcome = await store.write(principal, space, when=[*when, impossible])
            existing = [] if isinstance(outcome, Commit) else [each.condition for each in outcome.unmet]
            existing = [condition for condition in existing if isinstance(condition, Check)]
        else:
            outcome = await store.write(principal, space, *mutations, when=when)
            existing = [] if isinstance(outcome, Commit) else [each.condition for each in outcome.unmet]
        if existing:
            at = when.index(existing[0])  # type: ignore[arg-type]
            raise ConditionNotMet(
                f"the key of line {self._numbers[at]} exists; its batch, and all that follows, was not imported",
                line=self._numbers[at],
                key=unpack(self._batch[at].key),
            )
        self._set += len(self._batch)


def _is_absent(condition: object) -> bool:
    """Whether it was `Present` that was not met, by which a dry run finds that the key does not exist."""
    return isinstance(condition, Present)
