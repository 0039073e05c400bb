"""Dumps: nothing is lost on the way through a file, and no damage to one goes unnoticed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import pytest

from kvasir.config.table import Config
from kvasir.control import bootstrap
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Entry, Query, Set
from kvasir.transfer import dump_file, dump_lines
from kvasir.transfer.source import EngineSource
from kvasir.transfer.target import Report, fill
from tests.support.clock import START, ManualClock
from tests.support.lab import commit, k, new_space
from tests.support.organisations import ORGANISATION

PAGE = Path(__file__).parent.parent.parent / "docs" / "dump-format.md"

#: One of each kind of trouble for a text format.
ENTRIES = [
    Entry(pack(["plain"]), b"1", 1, 10, START),
    Entry(pack(["\x00", "", "\n\u2028é\U0001f600"]), '["\\u0000", "\u2028é", 1.50, 1e5,  2]'.encode(), 2, 11, START),
    Entry(b"\x02\xff\x00", b'"\xff"', (1 << 63) - 2, 12, START, (1 << 63) - 1, (1 << 53) + 1, b'{"\\"": [ ]}'),
    Entry(pack(["negative"]), b"{}", 4, 13, START, START + 5, 0, b"{}"),
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: repr(entry.key))
def test_a_line_gives_back_every_byte_of_an_entry(entry: Entry) -> None:
    text = dump_lines.encode(dump_lines.entry_line(entry))
    assert text.count(b"\n") == 1
    assert text.decode()
    line = dump_lines.decode(text)
    assert isinstance(line, dump_lines.EntryLine)
    if entry.value != b'"\xff"':
        assert dump_lines.entry_of(line) == entry
    for value in json.loads(text).values():
        assert not isinstance(value, int) or abs(value) <= 2**53


def test_bytes_that_are_not_text_are_base64() -> None:
    line = dump_lines.entry_line(ENTRIES[2])
    assert line.key == dump_lines.Raw(b"\x02\xff\x00")
    assert line.value == dump_lines.Raw(b'"\xff"')
    assert dump_lines.decode(dump_lines.encode(line)) == line


async def _dumped(clock: ManualClock) -> bytes:
    engine = MemoryEngine(clock)
    await bootstrap.bootstrap(engine, Config(organisation_id=ORGANISATION, admin_key="a" * 40), clock)
    for n in (1, 2):
        space = await new_space(engine, n, expires_at=START + 10**10 if n == 2 else None)
        for at in range(5):
            await commit(engine, space.number, Set(k("k", str(at)), b'{"n": %d}' % at, b'{"m": 1}', ttl=10**9))
            clock.now += 1
    return await _dump_of(engine)


async def _dump_of(engine: Engine) -> bytes:
    out = io.BytesIO()
    await dump_file.write(await EngineSource.of(engine), out, lambda _: None)
    return out.getvalue()


@pytest.fixture(scope="module")
def dump() -> bytes:
    """A small dump: three spaces, the system space and about thirteen entries."""
    return asyncio.run(_dumped(ManualClock()))


def loaded(text: bytes) -> tuple[Report, MemoryEngine]:
    async def load() -> tuple[Report, MemoryEngine]:
        clock = ManualClock()
        engine = MemoryEngine(clock)
        return await fill(dump_file.FileSource(io.BytesIO(text), "file", None, clock), engine, lambda _: None), engine

    return asyncio.run(load())


def test_a_dump_of_what_was_loaded_is_the_same_byte_for_byte(dump: bytes) -> None:
    report, engine = loaded(dump)
    assert report.differences == []
    assert asyncio.run(_dump_of(engine)) == dump


def test_a_second_load_of_the_same_file_changes_nothing(dump: bytes) -> None:
    _, engine = loaded(dump)
    clock = ManualClock()
    source = dump_file.FileSource(io.BytesIO(dump), "file", None, clock)
    report = asyncio.run(fill(source, engine, lambda _: None))
    assert (report.written, report.removed, report.differences) == (0, 0, [])


def refusal(text: bytes) -> str:
    """Why the file is refused, whether it is checked or loaded; the two must agree."""
    with pytest.raises(dump_file.Damaged) as checked:
        dump_file.check(io.BytesIO(text), "file")
    with pytest.raises(dump_file.Damaged) as read:
        loaded(text)
    assert checked.value.message == read.value.message
    return checked.value.message


def test_a_complete_dump_passes(dump: bytes) -> None:
    last = dump_file.check(io.BytesIO(dump), "file")
    assert last.spaces == 3
    assert last.entries == dump.count(b'"line":"entry"')


def test_a_file_cut_anywhere_is_noticed(dump: bytes) -> None:
    starts = [0, *(at + 1 for at, byte in enumerate(dump) if byte == ord("\n"))]
    for at in {*range(0, len(dump), 37), *starts[:-1], len(dump) - 1}:
        line = dump[:at].count(b"\n") + 1
        assert refusal(dump[:at]) == f"file, line {line}: the dump is cut off here"


def test_every_altered_line_is_noticed(dump: bytes) -> None:
    whole = dump.splitlines(keepends=True)
    for number, line in enumerate(whole[1:], 2):
        digit = max(line.rfind(b"1"), line.rfind(b"2"), line.rfind(b"3"))
        altered = line[:digit] + (b"4" if digit else b"x") + line[digit + 1 :]
        message = refusal(b"".join([*whole[: number - 1], altered, *whole[number:]]))
        named = [
            int(found.replace(",", ""))
            for found in re.findall(r"line ([\d,]+)|lines ([\d,]+) to ([\d,]+)", message)[0]
            if found
        ]
        spans = re.search(r"lines ([\d,]+) to ([\d,]+)", message)
        assert number in named or (spans and int(spans[1]) <= number <= int(spans[2])) or number == len(whole) - 1, (
            message
        )


def test_missing_repeated_and_swapped_lines_are_noticed(dump: bytes) -> None:
    whole = dump.splitlines(keepends=True)
    for at in range(1, len(whole) - 1):
        for broken in (
            [*whole[:at], *whole[at + 1 :]],
            [*whole[: at + 1], *whole[at:]],
            [*whole[: at - 1], whole[at], whole[at - 1], *whole[at + 1 :]],
        ):
            assert "line " in refusal(b"".join(broken))


def test_anything_after_the_end_is_noticed(dump: bytes) -> None:
    assert f"line {dump.count(10) + 1}: nothing may come" in refusal(dump + b"{}\n").replace(",", "")


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 12])
def test_a_compressed_file_that_lost_its_end_is_refused_with_the_line(dump: bytes, cut: int) -> None:
    assert_cannot_be_decompressed(dump, gzip.compress(dump, mtime=0)[:-cut])


def test_a_compressed_file_with_another_checksum_is_refused_with_the_line(dump: bytes) -> None:
    packed = bytearray(gzip.compress(dump, mtime=0))
    packed[-6] ^= 1
    assert_cannot_be_decompressed(dump, bytes(packed))


def test_anything_after_a_compressed_file_is_refused_with_the_line(dump: bytes) -> None:
    assert_cannot_be_decompressed(dump, gzip.compress(dump, mtime=0) + b"garbage")


def assert_cannot_be_decompressed(dump: bytes, packed: bytes) -> None:
    """All lines but perhaps the last can be read, so the message names one of these two."""
    lines = dump.count(b"\n")
    with gzip.open(io.BytesIO(packed)) as file, pytest.raises(dump_file.Damaged) as refused:
        dump_file.check(cast("BinaryIO", file), "file.gz")
    named = re.match(r"file\.gz: it cannot be decompressed after line ([\d,]+): ", refused.value.message)
    assert named, refused.value.message
    assert int(named[1]) in (lines - 1, lines)


def test_a_newer_version_is_refused(dump: bytes) -> None:
    newer = dump.replace(b'"version":2', b'"version":3,"compressed":true', 1)
    assert refusal(newer) == (
        "file, line 1: the dump has version 3, and this Kvasir reads versions 1 to 2: load it with a newer one"
    )


def test_each_version_has_its_own_word_for_aliases(dump: bytes) -> None:
    doors = dump.replace(b'"aliases":', b'"doors":')
    version_1 = b'"version":1'
    report, engine = loaded(rewritten(doors.replace(b'"version":2', version_1, 1)))
    assert report.differences == []
    assert asyncio.run(_dump_of(engine)) == dump
    for mixed in (doors, dump.replace(b'"version":2', version_1, 1)):
        assert "not a line of a dump" in refusal(rewritten(mixed))


@pytest.mark.parametrize(
    "text", [b"\x1f\x8b\n", b"[]\n", b"{}\n", b'{"format":"kvasir-dump"}\n', b'{"line":"entry"}\n']
)
def test_another_file_is_refused(text: bytes) -> None:
    assert refusal(text) == "file, line 1: this is not a Kvasir dump"


def rewritten(dump: bytes, number: int = 0, line: dict[str, Any] | None = None) -> bytes:
    """The dump with another line in place of one, if any, and with checksums that are right again."""
    out = []
    part = whole = hashlib.sha256()
    for at, text in enumerate(dump.splitlines(keepends=True), 1):
        if at == number:
            text = json.dumps(line).encode() + b"\n"
        facts = json.loads(text)
        if facts["line"] == "space":
            part = hashlib.sha256()
        if facts["line"] == "end":
            text = json.dumps(facts | {"sha256": part.hexdigest()}).encode() + b"\n"
        if facts["line"] == "last":
            text = json.dumps(facts | {"sha256": whole.hexdigest()}).encode() + b"\n"
        part.update(text)
        if at == 1:
            whole = hashlib.sha256()
        whole.update(text)
        out.append(text)
    return b"".join(out)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": "{"}, "not JSON"),
        ({"value": "1"}, None),
        ({"metadata": "nonsense"}, "not JSON"),
        ({"key": ["\ud800"]}, "not a line of a dump"),
        ({"versionstamp": "1"}, "versionstamp"),
        ({"versionstamp": "f" * 20}, "versionstamp"),
        ({"versionstamp": f"{(1 << 62) - 1:020x}"}, None),
        ({"versionstamp": f"{1 << 62:020x}"}, "versionstamp"),
        ({"sequence": str((1 << 62) - 1)}, None),
        ({"sequence": str(1 << 62)}, "its sequence is not"),
        ({"sequence": "0"}, None),
        ({"sequence": "-1"}, "its sequence is not"),
        ({"sequence": "9" * 19}, "63 bits"),
        ({"sequence": "soon"}, "63 bits"),
        ({"created_at": 1.5}, "not a line of a dump"),
        ({"sequence": 5}, "not a line of a dump"),
        ({"surprise": 1}, "not a line of a dump"),
    ],
)
def test_a_line_of_another_program(dump: bytes, change: dict[str, Any], why: str | None) -> None:
    texts = dump.splitlines()
    number = next(at for at, text in enumerate(texts, 1) if b'"line":"entry"' in text)
    other = rewritten(dump, number, json.loads(texts[number - 1]) | change)
    if why is not None:
        message = refusal(other)
        assert message.startswith(f"file, line {number}: ")
        assert why in message
    else:
        report, _ = loaded(other)
        assert report.differences == []


def test_the_example_of_the_page_is_a_dump() -> None:
    (example,) = re.findall(r"^```jsonl\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert dump_file.check(io.BytesIO(example.encode()), "example").spaces == 1
    report, engine = loaded(example.encode())
    assert report.differences == []
    (space,) = asyncio.run(engine.list_spaces())
    (entry,) = asyncio.run(engine.page(space.number, Query())).entries
    assert entry.key == k("products", "1")
    assert len(asyncio.run(engine.page(SYSTEM_SPACE, Query())).entries) == 2


def test_the_page_names_every_member_of_every_line() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind in (
        dump_lines.Header,
        dump_lines.SpaceLine,
        dump_lines.EntryLine,
        dump_lines.EndLine,
        dump_lines.LastLine,
    ):
        assert f'`"{kind.__struct_config__.tag}"`' in text
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in text
