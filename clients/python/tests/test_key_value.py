"""The store for py-key-value-aio passes that library's own store tests, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from kvasir_client.key_value import KvasirStore

from tests.support.serving import Server

CONTRACT = Path(__file__).parent / "contracts" / "py_key_value"


def test_the_store_passes_the_tests_of_all_stores(server: Server) -> None:
    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "KVASIR_STORE": "default", "NO_PROXY": "*"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    # Their repository runs asynchronous tests without marks; so does the plugin that our HTTP library brings along.
    command += [
        "-c",
        os.devnull,
        "--rootdir",
        str(CONTRACT),
        "--confcutdir",
        str(CONTRACT),
        "-o",
        "anyio_mode=auto",
        "-o",
        "pythonpath=.",
    ]
    done = subprocess.run(
        [*command, "tests/stores/test_kvasir.py"],
        cwd=CONTRACT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) passed, (\d+) skipped", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > 100
    # The one about a bound on the number of keys, with and without a context manager.
    assert int(found[2]) == 2


def test_longer_than_any_life_is_for_ever(server: Server) -> None:
    async def story() -> None:
        async with KvasirStore(url=server.url, key=server.key, store="default", prefix="long") as store:
            await store.put("k", {"a": 1}, ttl=10**10)
            assert await store.ttl("k") == ({"a": 1}, None)

    asyncio.run(story())
