"""The example program, which the type checker looks at, does what it says; so do the blocks of the client's page."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import kvasir_client
import pytest
from kvasir_client import AsyncClient, AsyncStore, AsyncTransaction, Client, Store, Transaction

from tests.support.serving import Server

CLIENT = Path(__file__).parents[1]
ROOT = CLIENT.parents[1]


def ran(server: Server, store: str, *arguments: str) -> str:
    with Client(server.url, key=server.key) as client:
        client.create_store(store)
    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "KVASIR_STORE": store, "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tour(server: Server) -> None:
    printed = ran(server, "tour", str(CLIENT / "examples" / "tour.py"))
    assert printed.splitlines() == [
        "True",
        "left: 6",
        "True False",
        "True",
        "{'mead': 1}",
        "[('000001',)] {'of': 'mead', 'bottles': 4}",
        "1 ['names', 'stock']",
        "[6, {'mead': 1}, None]",
        "('names',) False",
        "('stock', 'mead') True",
        "not_found store_not_found",
        "True True",
    ]


def test_the_page_of_the_client_is_true(server: Server, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    settings = [block for block in blocks if block.startswith("CACHES")]
    assert len(settings) == 1
    code = "\n".join(block for block in blocks if block not in settings)
    folder = f"import os; os.chdir({str(tmp_path)!r})\n"
    printed = ran(server, "first-steps", "-c", f"{folder}{code}\nclient.close()")
    assert 'b\'{"name":"mead","price":9.5}\'' in printed
    # The check and the set have no number; of ten bottles one is gone.
    assert "(9, None)" in printed
    assert "('orders', '17') {'of': 'mead'}" in printed
    assert "set ('orders', '18')" in printed
    assert "kept=1" in printed
    for name in re.findall(r"`kvasir_client\.(\w+)\.(\w+)", page):
        assert hasattr(__import__(f"kvasir_client.{name[0]}", fromlist=[name[1]]), name[1])


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Client, AsyncClient), (Store, AsyncStore), (Transaction, AsyncTransaction)]
)
def test_both_clients_have_the_same_words(blocking: type, asynchronous: type) -> None:
    def words(kind: type) -> dict[str, str]:
        names = [name for name in dir(kind) if not name.startswith("_")]
        found = {name: getattr(kind, name) for name in names}
        methods = {name: each if callable(each) else each.fget for name, each in found.items()}
        signatures = {name: inspect.signature(each) for name, each in methods.items()}
        return {name: str(list(signature.parameters.values())) for name, signature in signatures.items()}

    assert words(blocking) == words(asynchronous)


def test_all_that_is_public_is_documented() -> None:
    for name in kvasir_client.__all__:
        assert getattr(kvasir_client, name).__doc__ or name in ("Key", "Ttl"), name
    tree = ast.parse((CLIENT / "src" / "kvasir_client" / "client.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or node.name in ("close", "__enter__"), node.name
