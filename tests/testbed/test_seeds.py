"""Seeds: every format, and mistakes told with their line."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvasir.testing import Server
from kvasir.testing.server import KVASIR
from tests.support.cli import Commands
from tests.support.serving import serving

LINES = """{"key": "plain", "value": 12345678901234567890.10}
{"store": "shop", "key": ["cart", "1"], "value": {"items": 2}, "ttl": "24h", "metadata": {"by": "freyja"}}

{"application": "support", "key": "call:1", "value": "waiting"}
"""
YAML = """- {key: plain, value: 1}
- store: shop
  key: [cart, "1"]
  value: {items: 2}
  ttl: 24h
  metadata: {by: freyja}
- {application: support, key: "call:1", value: waiting}
"""
TOML = """[[entries]]
key = "plain"
value = 1

[[entries]]
store = "shop"
key = ["cart", "1"]
value = { items = 2 }
ttl = "24h"
metadata = { by = "freyja" }

[[entries]]
application = "support"
key = "call:1"
value = "waiting"
"""


def entry(server: Server, store: str, key: str) -> dict[str, Any]:
    address = f"{server.url}/store/{server.facts['stores'][store]}/kv/{key}"
    found: dict[str, Any] = httpx.get(address, headers={"Authorization": f"Bearer {server.key}"}).json()
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [("s.jsonl", LINES), ("s.yaml", YAML), ("s.toml", TOML), ("s.jsonl.gz", LINES)],
    ids=["JSON lines", "YAML", "TOML", "compressed"],
)
def test_a_seed_is_there_from_the_start(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    server = Server(["--seed", str(path)])
    try:
        assert "plain" not in server.facts["stores"]
        assert entry(server, "default", "plain")["value"] in (1, 12345678901234567890.10)
        cart = entry(server, "shop", "cart/1")
        assert (cart["value"], cart["metadata"]) == ({"items": 2}, {"by": "freyja"})
        assert "expiresAt" in cart
        server.clock.advance("24h")
        assert entry(server, "shop", "cart/1")["code"] == "not_found"
    finally:
        server.stop()


def test_a_dump_is_a_seed(tmp_path: Path) -> None:
    with serving(tmp_path) as source:
        httpx.put(f"{source.url}/store/{source.store}/kv/k", json={"value": "dumped"}, headers=source.headers)
        Commands(source)("dump", str(tmp_path / "all.dump.gz"))
    server = Server(["--seed", str(tmp_path / "all.dump.gz")])
    try:
        assert entry(server, "default", "k")["value"] == "dumped"
        assert server.facts["organisation"] == source.organisation
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.jsonl", LINES + '{"key": "k"}\n', "line 5"),
        ("s.jsonl", '{"key": "k", "value": 1, "tll": "1h"}', "tll"),
        ("s.jsonl", '{"key": "k", "value": 1, "ttl": "1y"}', "line 1: a whole number with a unit"),
        ("s.jsonl", "not JSON", "line 1"),
        ("s.yaml", YAML + "- {key: [], value: 1}\n", "line 8"),
        ("s.yaml", "a: b: c", "line 1"),
        ("s.yaml", "a: 1", "list of entries"),
        ("s.toml", TOML + "[[entries]]\nkey = 1\n", "line 16"),
        ("s.toml", "x = 1", "[[entries]]"),
        ("s.toml", "[[entries", "line 1"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    command = [*KVASIR, "dev", "--seed", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert str(path) in answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_damaged_dump_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.dump"
    path.write_text(json.dumps({"format": "kvasir-dump", "version": 2, "origin": "x"}) + "\n")
    for wrong in (path, tmp_path / "none"):
        command = [*KVASIR, "dev", "--seed", str(wrong)]
        answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert (answer.returncode, answer.stdout) == (1, "")
        assert "Traceback" not in answer.stderr
