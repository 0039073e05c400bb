"""A dump: written line by line from a source, checked as a whole, read as a source again. Never opens a file itself."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from kvasir.engine import Clock
from kvasir.errors import KvasirError, NotFound
from kvasir.jsontext import BYTE_ORDER_MARK
from kvasir.model import Alias, Entry, Space
from kvasir.transfer import dump_lines
from kvasir.transfer.dump_lines import AnyLine, EndLine, EntryLine, Header, LastLine, SpaceLine
from kvasir.transfer.source import EXPIRING_SOON_MS, SYSTEM, Checksum, OnEntries, Section, Source

#: Longer lines are refused, whatever the limit on values.
LINE_BYTES = 1 << 30


class Damaged(KvasirError):
    """A file that is not a complete dump. The message names the line."""


async def write(source: Source, file: BinaryIO, on_entries: OnEntries) -> LastLine:
    """Write everything the source gives, page by page. Raises OSError and whatever the source raises."""
    writer = _Writer(file)
    writer.put(Header(format=dump_lines.FORMAT, version=dump_lines.VERSION, origin=source.origin))
    async for section in source.sections():
        writer.begin(dump_lines.space_line(section.space, section.aliases))
        try:
            async for entry in section.entries():
                writer.entry(dump_lines.entry_line(entry))
                on_entries(1)
        except NotFound:
            pass  # the space has ended since; what was written of it stands
        writer.end(section.space.id)
    last = LastLine(spaces=writer.spaces - 1, entries=writer.entries, sha256=writer.whole.hexdigest())
    writer.put(last)
    return last


class _Writer:
    """Writes lines, and counts and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.whole = hashlib.sha256()
        self.spaces = self.entries = 0
        self._space_hash = hashlib.sha256()
        self._space_entries = 0

    def put(self, line: AnyLine) -> None:
        text = dump_lines.encode(line)
        self._file.write(text)
        self.whole.update(text)
        self._space_hash.update(text)

    def begin(self, line: SpaceLine) -> None:
        self._space_hash = hashlib.sha256()
        self._space_entries = 0
        self.spaces += 1
        self.put(line)

    def entry(self, line: EntryLine) -> None:
        self._space_entries += 1
        self.entries += 1
        self.put(line)

    def end(self, id: str) -> None:
        self.put(EndLine(space=id, entries=self._space_entries, sha256=self._space_hash.hexdigest()))


def check(file: BinaryIO, name: str) -> LastLine:
    """Read a whole dump and keep nothing of it. Raises `Damaged`."""
    reader = _Reader(file, name)
    while not isinstance(line := reader.next(), LastLine):
        if isinstance(line, EntryLine):
            reader.entry(line)
        elif isinstance(line, SpaceLine):
            reader.space(line)
    return line


class FileSource:
    """A dump as a source, read once from the present position of the file. Reading raises `Damaged`."""

    def __init__(self, file: BinaryIO, name: str, total: int | None, clock: Clock) -> None:
        self._reader = _Reader(file, name)
        self._clock = clock
        self.origin = self._reader.header.origin
        self.total = total

    async def sections(self) -> AsyncIterator[Section]:
        while isinstance(line := self._reader.next(), SpaceLine):
            space, aliases = self._reader.space(line)
            section = self._section(space, aliases)
            yield section
            # Nobody reads the entries of a space that has expired since.
            async for _ in section.entries():
                pass

    def _section(self, space: Space, aliases: list[Alias]) -> Section:
        until = self._clock() + EXPIRING_SOON_MS
        read = Checksum(space, aliases, until)

        async def entries() -> AsyncIterator[Entry]:
            while not self._reader.at_end:
                line = self._reader.next()
                if isinstance(line, EntryLine):
                    entry = self._reader.entry(line)
                    read.add(entry)
                    yield entry

        async def checksum() -> str:
            async for _ in entries():
                pass
            return read.text()

        return Section(space, aliases, until, entries, checksum)


class _Reader:
    """Reads line after line, checking that each is in its place and that every checksum is right."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._line = 0
        self._whole = hashlib.sha256()
        self._space_hash = hashlib.sha256()
        self._space_line = 0
        self._spaces = self._entries = self._space_entries = 0
        #: ULID of the space whose entries are being read
        self._open: str | None = None
        self._previous = ""
        text = self._read_line().removeprefix(BYTE_ORDER_MARK)
        try:
            self.header = dump_lines.check_header(text)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        self._whole.update(text)

    @property
    def at_end(self) -> bool:
        """Whether all entries of the space have been read."""
        return self._open is None

    def next(self) -> SpaceLine | EntryLine | EndLine | LastLine:
        """The next line."""
        text = self._read_line()
        try:
            line = dump_lines.decode(text, self.header.version)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        if isinstance(line, SpaceLine) and self._open is None and not self._all_spaces_read():
            self._begin(line)
        elif isinstance(line, EntryLine) and self._open is not None:
            self._space_entries += 1
        elif isinstance(line, EndLine) and self._open == line.space:
            self._end(line)
        elif isinstance(line, LastLine) and self._open is None and self._all_spaces_read():
            self._last(line)
        else:
            raise self._damaged("it does not belong here: lines are missing or out of order")
        self._whole.update(text)
        self._space_hash.update(text)
        assert not isinstance(line, Header)  # noqa: S101  # it belongs only at the top
        return line

    def space(self, line: SpaceLine) -> tuple[Space, list[Alias]]:
        """What the line just read stands for."""
        try:
            space = dump_lines.space_of(line)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        return (SYSTEM if space.id == SYSTEM.id else space), line.aliases

    def entry(self, line: EntryLine) -> Entry:
        """What the line just read stands for."""
        try:
            return dump_lines.entry_of(line)
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def _all_spaces_read(self) -> bool:
        return self._previous == SYSTEM.id

    def _begin(self, line: SpaceLine) -> None:
        if line.id != SYSTEM.id and line.id <= self._previous:
            raise self._damaged("the spaces are not in the order of their ULIDs")
        self._previous = self._open = line.id
        self._space_hash = hashlib.sha256()
        self._space_line = self._line
        self._space_entries = 0

    def _end(self, line: EndLine) -> None:
        if (line.entries, line.sha256) != (self._space_entries, self._space_hash.hexdigest()):
            raise self._damaged(
                f"lines {self._space_line:,} to {self._line - 1:,} are not as they were written: their number or"
                " their checksum differs"
            )
        self._open = None
        self._spaces += 1
        self._entries += self._space_entries

    def _last(self, line: LastLine) -> None:
        if (line.spaces, line.entries, line.sha256) != (self._spaces - 1, self._entries, self._whole.hexdigest()):
            raise self._damaged("the lines before it are not as they were written: their checksum differs")
        # With gzip, this reads the end of the file and verifies the checksum there.
        if self._read_bytes(1):
            self._line += 1
            raise self._damaged("nothing may come after the last line")

    def _read_line(self) -> bytes:
        text = self._read_bytes(LINE_BYTES)
        self._line += 1
        if not text.endswith(b"\n"):
            raise self._damaged("the dump is cut off here")
        return text

    def _read_bytes(self, size: int) -> bytes:
        """The next bytes, to the end of the line or at most `size`. The file may be compressed."""
        try:
            return self._file.readline(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(f"{self._name}: it cannot be decompressed after line {self._line:,}: {error}") from None

    def _damaged(self, what: str) -> Damaged:
        return Damaged(f"{self._name}, line {self._line:,}: {what}")
