"""The store as a `MutableMapping`, held to what Python's own tests demand of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from kvasir_client import Client, Invalid, Store
from kvasir_client.mapping import StoreMapping

from tests.support.serving import Server

_numbers = itertools.count()


@pytest.fixture
def kv(server: Server) -> Iterator[Store]:
    with Client(server.url, key=server.key) as client:
        yield client.store(client.create_store(f"mapping-{next(_numbers)}").id)


@pytest.fixture(params=[(), ("in", "here")], ids=["whole", "prefix"])
def mapping(kv: Store, request: pytest.FixtureRequest) -> StoreMapping:
    kv.set("before", 0)
    if request.param:
        # None of these is below the prefix.
        for key in (("in",), ("in", "here"), ("in", "hereafter"), ("in", "her", "e")):
            kv.set(key, "other")
    else:
        kv.delete("before")
    return StoreMapping(kv, request.param)


def test_like_a_dict(mapping: StoreMapping) -> None:
    like: dict[Any, Any] = {}
    for both in (mapping, like):
        both["a",] = 1
        both["b", "c"] = {"n": [None]}
        both.update({("x",): 1.5, ("y",): "é"})
        del both["x",]
        assert both.setdefault(("a",), 2) == 1
        assert both.setdefault(("z",)) is None
        assert both.pop(("z",), 5) is None
        assert both.pop(("z",), 5) == 5
        assert ("a",) in both
        assert ("no",) not in both
        assert 5 not in both
        assert both.get(("no",), 7) == 7
        for failing in (both.__getitem__, both.__delitem__, both.pop):
            with pytest.raises(KeyError):
                failing(("no",))
    assert dict(mapping) == like == dict(mapping.items())
    assert mapping == like
    assert len(mapping) == len(like) == 3
    assert list(mapping) == sorted(like)
    assert sorted(map(repr, mapping.values())) == sorted(map(repr, like.values()))
    assert (("a",), 1) in mapping.items()
    assert 1 in mapping.values()
    assert ("a",) in mapping.keys()  # noqa: SIM118


def test_emptying_it(mapping: StoreMapping, kv: Store) -> None:
    others = [entry.key for entry in kv.scan()]
    mapping.update({("a",): 1, ("b",): 2, ("b", "c"): 3})
    assert mapping.popitem() == (("a",), 1)
    mapping.update({str(n): n for n in range(1_200)})
    mapping.clear()
    assert (len(mapping), list(mapping), bool(mapping)) == (0, [], False)
    with pytest.raises(KeyError, match="empty"):
        mapping.popitem()
    assert [entry.key for entry in kv.scan()] == others


def test_keys_that_no_entry_can_have(mapping: StoreMapping) -> None:
    for key in ((), "\ud800", "x" * 3_000):
        assert key not in mapping
        assert mapping.get(key) is None
        assert mapping.pop(key, 5) == 5
        for failing in (mapping.__getitem__, mapping.__delitem__, mapping.pop):
            with pytest.raises(KeyError):
                failing(key)


def test_a_failure_to_ask_is_no_absent_key(server: Server) -> None:
    client = Client(server.url, key=server.key)
    mapping = StoreMapping(client.store(server.store))
    client.close()
    for ask in (mapping.get, mapping.pop, mapping.__contains__, mapping.__delitem__):
        with pytest.raises(Invalid, match="closed"):
            ask("k")


def test_clearing_leaves_an_entry_that_comes_meanwhile(kv: Store) -> None:
    """The entry whose key is the prefix itself is not the mapping's."""
    mapping = StoreMapping(kv, "p")
    mapping.update({str(n): n for n in range(5)})
    begin = kv.transaction

    def transaction() -> Any:
        kv.set("p", "other")
        kv.transaction = begin  # type: ignore[method-assign]
        return begin()

    kv.transaction = transaction  # type: ignore[method-assign]
    mapping.clear()
    assert [entry.key for entry in kv.scan()] == [("p",)]
    assert len(mapping) == 0


def test_a_part_alone_is_a_key_of_one_part(mapping: StoreMapping) -> None:
    mapping["a"] = 1
    assert list(mapping) == [("a",)]
    assert mapping["a"] == mapping["a",] == 1


def test_setdefault_and_pop_hold_when_others_are_faster(mapping: StoreMapping, kv: Store) -> None:
    """Somebody else writes between the look and the write."""
    look = kv.get
    others: list[Any] = [lambda: mapping._store.set((*mapping._prefix, "k"), "theirs")]

    def get(*arguments: Any, **options: Any) -> Any:
        found = look(*arguments, **options)
        if others:
            others.pop()()
        return found

    kv.get = get  # type: ignore[method-assign]
    assert mapping.setdefault("k", "ours") == "theirs"
    others.append(lambda: mapping._store.set((*mapping._prefix, "k"), "newer"))
    assert mapping.pop("k") == "newer"


def test_pythons_own_tests_of_mappings(kv: Store) -> None:
    """They come with most Pythons; some distributions have them in a package of their own."""
    tests = pytest.importorskip("test.mapping_tests")

    class OurMapping(tests.BasicTestMappingProtocol):  # type: ignore[misc, name-defined]
        def type2test(self, *arguments: Any) -> Any:
            mapping = StoreMapping(kv, ("m", str(next(_numbers))))
            if arguments:
                mapping.update(*arguments)
            return mapping

        def _reference(self) -> dict[Any, Any]:
            return {("1",): "2", ("key1",): "value1", ("key2",): [1, 2, 3]}

    names = [name for name in dir(OurMapping) if name.startswith("test_")]
    assert {"test_read", "test_write", "test_items", "test_update", "test_popitem", "test_pop"} <= set(names)
    for name in names:
        case = OurMapping(name)
        case.debug()
