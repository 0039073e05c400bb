"""Forms of the Voximplant API, and what its methods make of the fields.

An input is a line with the Content-Type, a line with the query, then the body. Fields that were read come back the same
from a urlencoded and from a multipart form; a method refuses what it does not like in the API's own form.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

import msgspec

from kvasir.dialects.ignored import Notes
from kvasir.dialects.voximplant import errors, forms
from kvasir.dialects.voximplant.commands import Call
from kvasir.dialects.voximplant.errors import ApiError
from kvasir.dialects.voximplant.methods import COMMANDS, KNOWN
from kvasir.dialects.voximplant.parameters import Parameters
from kvasir.errors import KvasirError
from tests.fuzz import done
from tests.support.voximplant import World

WORLD = World()

BOUNDARY = "a-boundary-in-no-value-4711"

#: What an answer is without an item
ANSWER = msgspec.json.Decoder(dict[str, object])


def check(data: bytes) -> None:
    declared, _, rest = data.partition(b"\n")
    query, _, body = rest.partition(b"\n")
    fields = read(query.decode("latin-1"), body, declared.decode("latin-1") or None)
    if fields is None:
        return
    assert all(name.__class__ is str and value.__class__ is str for name, value in fields.items())
    if fields and "" not in fields:
        assert forms.urlencoded(urlencode(fields)) == fields
        check_multipart(fields)
    check_methods(fields)


def read(query: str, body: bytes, declared: str | None) -> dict[str, str] | None:
    """The fields; None if they are refused."""
    try:
        kind, options = forms.content_type(declared)
        fields = forms.read(body, query, kind, options)
    except (ApiError, KvasirError) as refusal:
        check_failure(refusal)
        return None
    if not body and query.isascii():
        # As the standard library has it, which takes a field without a name for one.
        expected = [pair for pair in parse_qsl(query, keep_blank_values=True, errors="strict") if pair[0]]
        assert list(fields.items()) == expected, (fields, expected)
    return fields


def check_failure(refusal: ApiError | KvasirError) -> None:
    error = refusal if isinstance(refusal, ApiError) else errors.of(refusal)
    assert error.failure is not errors.INTERNAL
    ANSWER.decode(errors.render(error))


def check_multipart(fields: dict[str, str]) -> None:
    if not all(name.isascii() and name.isalnum() for name in fields) or BOUNDARY in "".join(fields.values()):
        return
    parts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    assert forms.multipart(f"{parts}--{BOUNDARY}--\r\n".encode(), BOUNDARY) == fields


def check_methods(fields: dict[str, str]) -> None:
    for name, command in COMMANDS.items():
        parameters = Parameters(fields, WORLD.dialect._settings)
        try:
            notes = Notes(KNOWN, name, strict=False)
            call = Call(WORLD.store, WORLD.dialect._settings, WORLD.owner, WORLD.space, parameters, notes)
            body = done(cast("Coroutine[Any, Any, bytes]", command.run(call)))
        except (ApiError, KvasirError) as refusal:
            check_failure(refusal)
        else:
            assert "result" in ANSWER.decode(body)
