"""A dump: written line by line from a source, checked whole, and read as a source again. Opens no file by itself."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from kvasir.engine import Clock
from kvasir.errors import KvasirError, NotFound
from kvasir.model import Alias, Entry, Space
from kvasir.transfer import dump_lines
from kvasir.transfer.dump_lines import AnyLine, EndLine, EntryLine, Header, LastLine, SpaceLine
from kvasir.transfer.source import SOON, SYSTEM, Checksum, Section, Source

#: A longer line is none, whatever the limit of values.
LINE_BYTES = 1 << 30

Report = Callable[[int], None]


class Damaged(KvasirError):
    """A file that is no whole dump. The message names the line."""


async def write(source: Source, file: BinaryIO, report: Report) -> LastLine:
    """Write everything the source gives, page by page. Raises OSError and whatever the engine raises."""
    writer = _Writer(file)
    writer.put(Header(format=dump_lines.FORMAT, version=dump_lines.VERSION, origin=source.origin))
    async for section in source.sections():
        writer.begin(dump_lines.of_space(section.space, section.aliases))
        try:
            async for entry in section.entries():
                writer.entry(dump_lines.of_entry(entry))
                report(1)
        except NotFound:
            pass  # the space has ended since; what is left of it goes with it
        writer.end(section.space.id)
    last = LastLine(spaces=writer.spaces - 1, entries=writer.entries, sha256=writer.whole.hexdigest())
    writer.put(last)
    return last


class _Writer:
    """Counts and sums up what goes out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.whole = hashlib.sha256()
        self.spaces = self.entries = 0
        self._part = hashlib.sha256()
        self._in_part = 0

    def put(self, line: AnyLine) -> None:
        text = dump_lines.encode(line)
        self._file.write(text)
        self.whole.update(text)
        self._part.update(text)

    def begin(self, line: SpaceLine) -> None:
        self._part = hashlib.sha256()
        self._in_part = 0
        self.spaces += 1
        self.put(line)

    def entry(self, line: EntryLine) -> None:
        self._in_part += 1
        self.entries += 1
        self.put(line)

    def end(self, id: str) -> None:
        self.put(EndLine(space=id, entries=self._in_part, sha256=self._part.hexdigest()))


def check(file: BinaryIO, name: str) -> LastLine:
    """Read a whole dump and use nothing of it. Raises `Damaged`."""
    reader = _Reader(file, name)
    while not isinstance(line := reader.next(), LastLine):
        if isinstance(line, EntryLine):
            reader.entry(line)
        elif isinstance(line, SpaceLine):
            reader.space(line)
    return line


class FileSource:
    """A dump as a source; it is read once, from where the file stands. Reading raises `Damaged`."""

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
            # Nobody has asked for the entries of a space that is gone by now.
            async for _ in section.entries():
                pass

    def _section(self, space: Space, aliases: list[Alias]) -> Section:
        until = self._clock() + SOON
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
    """Line after line, each where it may be, and every checksum looked at."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._line = 0
        self._whole = hashlib.sha256()
        self._part = hashlib.sha256()
        self._part_line = 0
        self._spaces = self._entries = self._in_part = 0
        #: The space that is open
        self._open: str | None = None
        self._former = ""
        text = self._read()
        try:
            self.header = dump_lines.check_header(text)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        self._whole.update(text)

    @property
    def at_end(self) -> bool:
        """Whether the entries of a space have all been read."""
        return self._open is None

    def next(self) -> SpaceLine | EntryLine | EndLine | LastLine:
        """The next line."""
        text = self._read()
        try:
            line = dump_lines.decode(text, self.header.version)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if isinstance(line, SpaceLine) and self._open is None and not self._is_over():
            self._begin(line)
        elif isinstance(line, EntryLine) and self._open is not None:
            self._in_part += 1
        elif isinstance(line, EndLine) and self._open == line.space:
            self._end(line)
        elif isinstance(line, LastLine) and self._open is None and self._is_over():
            self._last(line)
        else:
            raise self._wrong("it does not belong here: lines are missing, or in another order")
        self._whole.update(text)
        self._part.update(text)
        assert not isinstance(line, Header)  # noqa: S101  # it belongs nowhere but at the top
        return line

    def space(self, line: SpaceLine) -> tuple[Space, list[Alias]]:
        """What the line read last stands for."""
        try:
            space = dump_lines.space_of(line)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        return (SYSTEM if space.id == SYSTEM.id else space), line.aliases

    def entry(self, line: EntryLine) -> Entry:
        """What the line read last stands for."""
        try:
            return dump_lines.entry_of(line)
        except ValueError as error:
            raise self._wrong(str(error)) from None

    def _is_over(self) -> bool:
        return self._former == SYSTEM.id

    def _begin(self, line: SpaceLine) -> None:
        if line.id != SYSTEM.id and line.id <= self._former:
            raise self._wrong("the spaces are not in the order of their ULIDs")
        self._former = self._open = line.id
        self._part = hashlib.sha256()
        self._part_line = self._line
        self._in_part = 0

    def _end(self, line: EndLine) -> None:
        if (line.entries, line.sha256) != (self._in_part, self._part.hexdigest()):
            raise self._wrong(
                f"lines {self._part_line:,} to {self._line - 1:,} are not those that were written: their number or"
                " their checksum differs"
            )
        self._open = None
        self._spaces += 1
        self._entries += self._in_part

    def _last(self, line: LastLine) -> None:
        if (line.spaces, line.entries, line.sha256) != (self._spaces - 1, self._entries, self._whole.hexdigest()):
            raise self._wrong("the lines before it are not those that were written: their checksum differs")
        # With gzip, this is what reads the end of the file and compares the checksum there.
        if self._unpacked(1):
            self._line += 1
            raise self._wrong("nothing may come after the last line")

    def _read(self) -> bytes:
        text = self._unpacked(LINE_BYTES)
        self._line += 1
        if not text.endswith(b"\n"):
            raise self._wrong("the dump is cut off here")
        return text

    def _unpacked(self, size: int) -> bytes:
        """The next bytes, to the end of the line or so many: every look into the file, which may be packed."""
        try:
            return self._file.readline(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(f"{self._name}: it cannot be unpacked after line {self._line:,}: {error}") from None

    def _wrong(self, what: str) -> Damaged:
        return Damaged(f"{self._name}, line {self._line:,}: {what}")
