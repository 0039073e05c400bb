"""Lines of a dump: refused in words, or read, and then written again they say the same."""

from __future__ import annotations

from kvasir.keys import unpack
from kvasir.transfer import dump_lines
from kvasir.transfer.dump_lines import EndLine, EntryLine, Header, LastLine, SpaceLine


def check(data: bytes) -> None:
    for text in data.split(b"\n"):
        check_header(text)
        for version in (1, 2):
            check_line(text, version)


def check_header(text: bytes) -> None:
    try:
        header = dump_lines.check_header(text)
    except ValueError:
        return
    assert dump_lines.check_header(dump_lines.encode(header)) == header


def check_line(text: bytes, version: int) -> None:
    try:
        line = dump_lines.decode(text, version)
    except ValueError as error:
        assert str(error) == "this is not a line of a dump; it was altered or cut off"
        return
    assert isinstance(line, Header | SpaceLine | EntryLine | EndLine | LastLine)
    try:
        if isinstance(line, SpaceLine):
            space = dump_lines.space_of(line)
            again = dump_lines.decode(dump_lines.encode(dump_lines.space_line(space, line.aliases)))
            assert isinstance(again, SpaceLine)
            assert dump_lines.space_of(again) == space
            assert sorted(again.aliases) == sorted(line.aliases)
        elif isinstance(line, EntryLine):
            entry = dump_lines.entry_of(line)
            again = dump_lines.decode(dump_lines.encode(dump_lines.entry_line(entry)))
            assert isinstance(again, EntryLine)
            assert dump_lines.entry_of(again) == entry
            assert 0 <= entry.versionstamp < dump_lines.NUMBERS_END
            assert unpack(entry.key) is not None
    except ValueError as error:
        assert "surrogates not allowed" not in str(error)
