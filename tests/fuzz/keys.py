"""Keys in every form: packed, in the paths of both HTTP APIs, in queries, as JSON, and the numbers of entries.

Packed keys come back the same and sort as their parts do. A path leads to one key or to none.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from kvasir import keys
from kvasir.dialects.native import keytext, parameters
from kvasir.dialects.native.routes import OPERATIONS
from kvasir.dialects.native.routes import route as native_route
from kvasir.dialects.versori import fields, routes
from kvasir.errors import Invalid, NotFound
from kvasir.keys import pack, parse_versionstamp, unpack, versionstamp_text

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD")


def check(data: bytes) -> None:
    check_packed(data)
    text = data.decode("utf-8", "surrogateescape")
    parts, other = text.split("/"), text[1:].split("/")
    try:
        packed, beside = pack(parts), pack(other)
    except Invalid:
        assert not text.isascii()
    else:
        check_parts(parts, packed)
        assert (packed < beside) == (parts < other)
        assert (packed == beside) == (parts == other)
    check_paths(data.decode("latin-1"))
    check_query(data.decode("latin-1"))
    check_stamp(text)


def check_packed(data: bytes) -> None:
    try:
        parts = unpack(data)
    except ValueError:
        return
    assert pack(parts) == data
    # Only what has the form of a packed key may be found under a prefix.
    for count in range(1, len(parts)):
        wanted = keys.prefix_range(parts[:count])
        assert wanted is not None
        assert wanted.start <= data < wanted.end


def check_parts(parts: list[str], packed: bytes) -> None:
    assert unpack(packed) == parts
    assert fields.key(parts, "key") == packed
    for count in range(1, len(parts) + 1):
        wanted = keys.prefix_range(parts[:count])
        assert wanted is not None
        assert wanted.start <= packed < wanted.end
        child = keys.child_of(pack(parts[: count - 1]), packed)
        assert child == pack(parts[:count])
    start = keys.text_range(parts[0][: len(parts[0]) // 2])
    assert start.start <= packed < start.end
    spelled = "/".join(quote(part, safe="") for part in parts)
    try:
        assert keytext.of_path(spelled) == parts
    except Invalid:
        assert {"", ".", ".."} & set(parts)
    assert keytext.of_array(msgspec.json.encode(parts).decode(), "key") == parts


def check_paths(raw: str) -> None:
    for method in METHODS:
        try:
            operation, _, rest = routes.route(method, "/store/x/kv/" + raw)
            if operation in routes.KEY.values():
                assert "/".join(routes.key_parts(rest)) == rest
        except (Invalid, NotFound):
            pass
        for path in (f"/v1/spaces/x/entries/{raw}", f"/v1/{raw}"):
            try:
                _, _, key = native_route(method, path)
                parts = keytext.of_path(key) if key else []
            except (Invalid, NotFound):
                continue
            if parts:
                # Every spelling that is accepted means what the shortest one does.
                assert keytext.of_path("/".join(quote(part, safe="") for part in parts)) == parts


def check_query(text: str) -> None:
    for read in (keytext.of_array, keytext.of_query):
        try:
            assert all(part.__class__ is str for part in read(text, "key"))
        except Invalid:
            pass
    for operation in OPERATIONS:
        try:
            found = parameters.read(text, operation.parameters)
            parameters.prefix(found)
            parameters.key(found)
        except Invalid:
            pass


def check_stamp(text: str) -> None:
    stamp = parse_versionstamp(text)
    assert stamp == -1 or versionstamp_text(stamp) == text
