"""What a cluster with Citus asks of SQL, checked without one: each rule finds a statement that was planted for it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator

import pytest

from kvasir.engines import postgres
from kvasir.engines.postgres import cluster, encoding, functions, listing, read_batcher, schema, shards
from kvasir.errors import Unavailable
from kvasir.keys import prefix_range
from kvasir.model import Query

#: Never sent where the tables are distributed
ESTIMATES = {"checking.ESTIMATE", "checking.SIZE", "status.SIZES", "spaces.COUNT", "read_batcher.GET_SPACES"}
#: These look at the whole database, and are not sent for requests about a space.
WHOLE = ("checking.", "status.", "spaces.COUNT_SPREAD", "changelog.LAST", "cluster.", "schema.", "kvasir_sweep(")

VOLATILE = r"kvasir_time\(\)|kvasir_now\(\)|clock_timestamp\(\)|random\(\)"
SPREAD_TABLES = "|".join(cluster.DISTRIBUTED)


def strings(value: object) -> Iterator[str]:
    """Those in a constant, also in tuples of tuples."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from strings(item)


def texts() -> Iterator[tuple[str, str]]:
    """Every text of SQL that is sent to a cluster, with its name; functions one by one."""
    for module in pkgutil.iter_modules(postgres.__path__):
        found = importlib.import_module(f"{postgres.__name__}.{module.name}")
        for name, value in vars(found).items():
            if not name.isupper() or name.startswith("_") or f"{module.name}.{name}" in ESTIMATES:
                continue
            for text in strings(value):
                if re.match(r"\s*(select|update|insert|delete|with)\b", text):
                    yield f"{module.name}.{name}", text
    for order in ("newest", "oldest", "key"):
        for limit in (9, None):
            made = listing._Listing(1, Query(range=prefix_range(["a"]), order=order, limit=limit, created_from=1), None)
            for ask in (made.in_order, made.sorted, made.walk, made.unlimited):
                yield f"listing {order}", ask()[0]
    for statement in cluster.statements(schema._functions(spread=True)):
        (called,) = re.findall(r"create or replace function @(\w+\()", statement)
        yield called, statement


def parts(text: str) -> list[str]:
    """The statements inside a function, or the statement itself."""
    return re.sub(r"--[^\n]*", "", text).split(";")


def changing_functions(_: str, text: str) -> Iterator[str]:
    """An UPDATE or DELETE that calls a function whose result changes: each node would evaluate it by itself."""
    for part in parts(text):
        if re.search(r"\b(update\s+@?kvasir_|delete\s+from\s)", part) and re.search(VOLATILE, part):
            yield part


def looks_row_by_row(_: str, text: str) -> Iterator[str]:
    """A subquery of a distributed table that is evaluated for each row of a table which is whole on every node."""
    for part in parts(text):
        whole = "|".join(re.findall(r"@?kvasir_(?:space|alias) (?!where\b|on\b)(\w+)", part))
        if whole and re.search(rf"select[^;]*from @?(?:{SPREAD_TABLES}) \w+ where [^)]*= (?:{whole})\.", part):
            yield part


def several_statements(name: str, text: str) -> Iterator[str]:
    """Several statements in one text."""
    if not name.endswith("(") and len(cluster.statements(text)) > 1:
        yield text


def without_the_space(name: str, text: str) -> Iterator[str]:
    """A statement about entries that does not say the one space it is about."""
    if name.startswith(WHOLE):
        return
    for part in re.split(r";|\bfound as|\bwith (?!ordinality)", text):
        looks = re.findall(rf"(?:from|update|join)\s+@?(?:{SPREAD_TABLES})\b", part)
        named = re.findall(r"space = (?:\$1|p_space|v_number|dead\.\w+|1\b)", part)
        if len(named) < len(looks):
            yield part


def generic_plans(_: str, text: str) -> Iterator[str]:
    """A plan that is made before the space is known, which cannot be sent to the node that has it."""
    if "force_generic_plan" in text:
        yield text


RULES: dict[Callable[[str, str], Iterator[str]], str] = {
    changing_functions: "update @kvasir_head h set last = kvasir_time() where h.space = 1",
    looks_row_by_row: "select (select count(*) from kvasir_entry e where e.space = s.number) from kvasir_space s ",
    several_statements: "select 1; select 2",
    without_the_space: "select value from kvasir_entry where key = any($3)",
    generic_plans: "create function f() set plan_cache_mode = force_generic_plan",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_statement_keeps_the_rule(rule: Callable[[str, str], Iterator[str]]) -> None:
    assert list(rule("planted", RULES[rule])), "the rule finds nothing"
    faults = {name: fault for name, text in texts() for fault in rule(name, text)}
    assert not faults, rule.__doc__


def test_no_text_is_left_out() -> None:
    names = [name for name, _ in texts()]
    assert {"read_batcher.GET", "read_batcher.EPOCH", "spaces.RESOLVE", "tree.CHILDREN", "kvasir_write("} <= set(names)
    assert {"kvasir_system_write(", "kvasir_end_space(", "encoding.CALL_WRITE", "kvasir_sweep("} <= set(names)
    assert len(names) > 50


def test_the_session_of_a_cluster_plans_for_known_arguments() -> None:
    assert cluster.SESSION["plan_cache_mode"] == "auto"


def test_the_system_space_has_statements_of_its_own() -> None:
    for sql in (read_batcher.GET, read_batcher.EPOCH, listing.COUNT, encoding.CALL_WRITE):
        own = cluster.of_system_space(sql)
        assert "kvasir_system_" in own
        assert not re.search(r"kvasir_(head|entry|write)", own)
        assert cluster.of_system_space(own) == own


def test_texts_are_split_into_their_statements() -> None:
    text = schema.ALL_FUNCTIONS
    assert len(cluster.statements(text)) == text.count("create or replace function")
    assert cluster.statements("a; -- b; c\nd $$ e; f $$; ") == ["a", "d $$ e; f $$"]
    assert functions.MOVE_EPOCH in text


def test_writes_go_to_the_shard_before_anything_goes_through_citus() -> None:
    found = dict(texts())
    for name in ("kvasir_set", "kvasir_write", "kvasir_load"):
        body = found[f"{name}("].partition(" begin")[2] or found[f"{name}("].partition("begin")[2]
        assert re.search(rf"@kvasir_here\(p_space\).*?@{name}_%s.*?@kvasir_head h", body, re.DOTALL), name
        values = re.findall(r"\bp_\w+", found[f"{name}("].partition(")")[0])
        assert f"v_done using {', '.join(values)};" in body, "not all that it was given"
    assert "@kvasir_set_at(v_of[v_place], p_now" in found["kvasir_set_spaces("]
    assert not re.search(r"\b(from|join|into|update) @kvasir_(head|entry|change)\b", found["kvasir_set_spaces("])


def test_the_function_of_a_shard_is_found_by_its_number() -> None:
    numbers = [107, 101, 105, 103, 102]
    sql = shards.set_at(numbers)
    for number in numbers:
        assert sql.count(f"if p_shard = {number} then v_done := @kvasir_set_spaces_{number}(p_now, p_durable,") == 1
    # Each comparison halves those that are left.
    assert re.findall(r"p_shard < (\d+)", sql) == ["103", "102", "105", "107"]
    assert sql.count("p_shard bigint, p_now bigint,") == 1
    assert "out replaced bigint[]" in sql
    sql = shards.get(numbers)
    for number in numbers:
        assert (
            len(re.findall(rf"if v_shard = {number} then return query select .*\n.*@kvasir_entry_{number} e\n", sql))
            == 1
        )
    assert re.findall(r"v_shard < (\d+)", sql) == ["103", "102", "105", "107"]


@pytest.mark.parametrize("sql", shards.FUNCTIONS, ids=lambda sql: re.findall(r"@(\w+)", sql)[0])
def test_the_functions_of_a_shard_know_only_its_tables(sql: str) -> None:
    own = shards.of_shard(sql, 101, 202, 303)
    assert set(re.findall(r"@kvasir_(?:head|entry|change)\w*", own)) <= {
        "@kvasir_head_101", "@kvasir_entry_202", "@kvasir_change_303",
    }  # fmt: skip
    assert re.search(r"function @kvasir_(set|set_spaces|write|load)_101\(", own)
    assert set(re.findall(r"@kvasir_(?!head|entry|change)\w+", own)) - {"@kvasir_time"} == {
        re.findall(r"function (@\w+)", own)[0]
    }
    assert "plan_cache_mode = force_generic_plan" in own


def test_a_schema_that_citus_cannot_use_is_refused_by_name() -> None:
    cluster.check_schema("kvasir_1")
    with pytest.raises(Unavailable, match="quotation marks"):
        cluster.check_schema('"Kvasir"')
