"""JSONPaths and JSON Pointers of the NemesisDB API.

An input is a line with the path, then perhaps a document; there is one that has something for most paths. A path is
refused by name or found within its budget; what it replaces is what it finds; the document itself never changes.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

from kvasir import jsontext
from kvasir.dialects.nemesis import json_pointer
from kvasir.dialects.nemesis.json_pointer import BadPointer, Mismatch
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.dialects.nemesis.jsonpath.compiler import BadPath, Budget, TooMuch
from kvasir.errors import KvasirError

STEPS = 20_000

DOCUMENT = json.loads(
    '{"store":{"book":[{"title":"A","price":8.95,"tags":["x","y"]},{"title":"B","price":12,"isbn":"0-5","n":null}],'
    '"bicycle":{"colour":"red","price":-19.5,"on":true}},"a":{"a":{"a":[1,[2,[3]],{}]}},"":"empty","10":"ten",'
    '"text":"abcabc","length":3,"list":[3,1,2],"big":123456789012345678901234567890,"\\u00e4":"\\ud83d\\ude00"}'
)


def check(data: bytes) -> None:
    line, _, rest = data.partition(b"\n")
    document = read(rest) if rest else DOCUMENT
    text = line.decode("utf-8", "replace")  # it comes from a JSON text, so it is text
    before = json.dumps(document)
    check_path(text, document)
    check_pointer(text, document)
    assert json.dumps(document) == before


@lru_cache(maxsize=64)
def read(text: bytes) -> Any:
    try:
        return jsontext.decode(text, 100)
    except KvasirError:
        return DOCUMENT


def check_path(text: str, document: Any) -> None:
    try:
        path = compiler.compile(text)
    except BadPath:
        return
    budget = Budget(STEPS)
    try:
        found = compiler.find(path, document, budget)
    except TooMuch:
        return
    assert len({node.steps for node in found}) == len(found)
    for node in found:
        json.dumps(node.value)
    again = compiler.find(compiler.compile(text), document, Budget(STEPS))
    assert [node.steps for node in again] == [node.steps for node in found]
    try:
        changed, count = compiler.replace(path, copy.deepcopy(document), "new", Budget(STEPS))
    except TooMuch:
        return
    assert count <= len(found)
    if not count:
        assert json.dumps(changed) == json.dumps(document)


def check_pointer(text: str, document: Any) -> None:
    try:
        parts = json_pointer.parts_of(text)
    except BadPointer:
        return
    spelled = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
    assert spelled == text
    try:
        value = json_pointer.resolve(document, parts)
    except LookupError:
        return
    budget = Budget(10**9)
    assert json_pointer.Operand(value).order(value, budget.spend) == 0
    least = json_pointer.Operand(document).order(value, budget.spend)
    assert least == -json_pointer.Operand(value).order(document, budget.spend)
    changed = json_pointer.replaced(copy.deepcopy(document), parts, "new")
    assert json_pointer.resolve(changed, parts) == "new"
    try:
        json_pointer.appended(value, document)
    except Mismatch:
        pass
