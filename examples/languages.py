"""Loads the world's languages (ISO 639-3, from the package pycountry) and reads them back in every way the API offers.

It needs nothing but the standard library and two variables: KV, the address of a store's keys
(http://127.0.0.1:8901/api/v2/store/<ULID>/kv), and KEY, an access key that may write.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from importlib.resources import files
from typing import Any

BATCH = 1_000


def call(method: str, path: str, body: Any = None) -> Any:
    """One request to the store; its answer."""
    request = urllib.request.Request(
        os.environ["KV"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {os.environ['KEY']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def listed(prefix: list[str]) -> list[Any]:
    """Every entry under a prefix, newest first, a page at a time."""
    entries: list[Any] = []
    selector: dict[str, Any] = {"prefix": prefix}
    while True:
        page = call("POST", "/list", {"selector": selector})
        entries += page["data"]
        if not page["pagination"]["nextCursor"]:
            return entries
        selector["after"] = page["pagination"]["nextCursor"]


def main() -> None:
    """Load, read back, compare."""
    text = (files("pycountry") / "databases" / "iso639-3.json").read_text(encoding="utf-8")
    languages = {("languages", one["type"], one["alpha_3"]): one for one in json.loads(text)["639-3"]}
    items = list(languages.items())

    began = time.perf_counter()
    for start in range(0, len(items), BATCH):
        entries = [{"key": key, "value": value} for key, value in items[start : start + BATCH]]
        answer = call("PUT", "/batch", {"entries": entries})
        assert not answer["failures"], answer["failures"][:3]
    print(f"BatchSetKV  {len(items):,} languages in {time.perf_counter() - began:.2f} s")

    assert call("POST", "/count", {"selector": {"prefix": ["languages"]}})["count"] == len(items)
    print(f"CountKV     {len(items):,} of them are there")

    key, value = items[0]
    assert call("GET", "/" + "/".join(key))["value"] == value
    print(f"GetKV       {'/'.join(key)} is {value['name']}")

    some = call("POST", "/batch", {"keys": [key for key, _ in items[:100]]})["entries"]
    assert [entry["value"] for entry in some] == [value for _, value in items[:100]]
    print("BatchGetKV  100 at once, each as it was set")

    found = listed(["languages"])
    assert {tuple(entry["key"]): entry["value"] for entry in found} == languages
    assert len(found) == len(items)
    print(f"ListKV      {len(found):,} by pages of 100, none missing, none twice")

    constructed = {entry["value"]["name"] for entry in listed(["languages", "C"])}
    assert constructed == {value["name"] for key, value in items if key[1] == "C"}
    print(f"ListKV      {len(constructed)} of them constructed: {', '.join(sorted(constructed)[:3])}, …")


if __name__ == "__main__":
    main()
