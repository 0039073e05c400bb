"""The backend for Django's cache passes Django's own tests of its cache API, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from kvasir_client import Client
from kvasir_client.django import KvasirCache

from tests.support.serving import Server

ROOT = Path(__file__).parents[3]
CONTRACT = Path(__file__).parent / "contracts" / "django_cache"
CULLING = ["test_cull", "test_cull_delete_when_store_empty", "test_zero_cull"]
#: Unpacked by `make test`.
SOURCE = ROOT / ".venv" / "clients" / "django" / "tests"


def test_the_backend_passes_djangos_tests(server: Server) -> None:
    assert SOURCE.is_dir(), "run `make .venv/clients/django/ready`: it fetches the tests"
    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "KVASIR_STORE": "default", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, str(CONTRACT / "run.py"), str(SOURCE)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ran"] == 46
    # There is no culling: an entry lives until its end.
    assert [line.split()[0] for line in told["skipped"]] == CULLING


def test_the_tests_are_those_of_the_version_that_is_installed() -> None:
    found = re.match(r"django==(\S+) ", (CONTRACT / "source.lock").read_text())
    assert found
    assert found[1] == django.__version__


@pytest.fixture
def cache(server: Server) -> Iterator[KvasirCache]:
    options = {"KEY": server.key, "STORE": "default", "PREFIX": "our-cache"}
    cache = KvasirCache(server.url, {"OPTIONS": options, "TIMEOUT": 300})
    yield cache
    cache.clear()


@pytest.mark.parametrize("value", ["s", 1, 2.5, True, None, [1, [2]], {"a": {"b": None}}, "é𝄞", 2**80], ids=repr)
def test_what_json_can_express(cache: KvasirCache, value: Any) -> None:
    cache.set("k", value)
    assert cache.get("k", "absent") == value
    cache.set_many({"a": value, "b": value})
    assert cache.get_many(["a", "b", "c"]) == {"a": value, "b": value}


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), float("nan")], ids=lambda value: type(value).__name__)
def test_what_json_cannot_express_is_refused_and_not_changed(cache: KvasirCache, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        cache.set("k", value)
    assert cache.get("k", "absent") == "absent"


def together(work: Any, number: int = 8) -> list[Any]:
    """What so many threads get that start at the same time."""
    start = threading.Barrier(number)
    got: list[Any] = []

    def run() -> None:
        start.wait()
        got.append(work())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_add_is_atomic(cache: KvasirCache) -> None:
    for n in range(10):
        assert sorted(together(lambda n=n: cache.add(f"lock-{n}", 1))) == [False] * 7 + [True]


def test_incr_is_exact(cache: KvasirCache) -> None:
    cache.set("n", 0)
    together(lambda: [cache.incr("n") for _ in range(20)])
    assert cache.get("n") == 160


def test_asynchronous_methods_are_as_exact(cache: KvasirCache) -> None:
    cache.set("n", 0, timeout=100_000)

    async def count() -> None:
        await asyncio.gather(*(cache.aincr("n") for _ in range(20)))
        await cache.adecr("n")
        await cache.aset_many({"a": 1, "b": 2})
        assert await cache.aget_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        await cache.adelete_many(["a", "b"])

    asyncio.run(count())
    assert cache.get_many(["n", "a", "b"]) == {"n": 19}
    entry = cache._store.get(cache._key("n", None))
    assert entry
    assert entry.expires_at
    assert entry.expires_at - datetime.now(UTC) > timedelta(seconds=90_000)


def test_many_long_values(cache: KvasirCache) -> None:
    """Together they are longer than a request, and than an answer, may be."""
    values = {str(n): "x" * 900_000 for n in range(40)}
    cache.set_many(values)
    assert cache.get_many(values) == values


@pytest.mark.parametrize("timeout", [sys.maxsize, 200 * 365 * 86_400, 1e300])
def test_longer_than_any_life_is_for_ever(cache: KvasirCache, timeout: float) -> None:
    cache.set("k", 1, timeout=timeout)
    entry = cache._store.get(cache._key("k", None))
    assert entry
    assert entry.expires_at is None


def test_one_location(server: Server) -> None:
    with pytest.raises(ImproperlyConfigured, match="one server"):
        KvasirCache([server.url], {})  # type: ignore[arg-type]


def test_clearing_the_cache_leaves_the_rest_of_the_store(cache: KvasirCache, server: Server) -> None:
    with Client(server.url, key=server.key) as client:
        kv = client.store("default")
        kv.set("other", 1)
        cache.set_many({str(n): n for n in range(1_500)})
        assert kv.count("our-cache") == 1_500
        assert len(cache.get_many(str(n) for n in range(1_500))) == 1_500
        cache.delete_many(str(n) for n in range(1_400))
        assert kv.count("our-cache") == 100
        cache.clear()
        assert (kv.count("our-cache"), kv.get("other") is not None) == (0, True)
