"""How many of our modules a reader has to open to follow one request through a live server."""

from __future__ import annotations

import pytest

from tools.request_path import paths

#: At most this many, the nouns not counted.
MODULES = {"PUT": 16, "GET": 11, "KV_SET": 17, "SetKeyValueItem": 16}


@pytest.fixture(scope="module")
def traced() -> dict[str, list[str]]:
    return paths()


@pytest.mark.only_sqlite("the path leads through its engine")
@pytest.mark.parametrize(("request_name", "most"), MODULES.items())
def test_a_request_runs_through_few_modules(traced: dict[str, list[str]], request_name: str, most: int) -> None:
    modules = traced[request_name]
    assert modules[0].startswith("listeners.")
    assert "store.store" in modules
    assert {module for module in modules if module.startswith("engines.sqlite.")}, "the writer's thread is traced, too"
    assert len(modules) <= most, f"{request_name} runs through {', '.join(modules)}"
