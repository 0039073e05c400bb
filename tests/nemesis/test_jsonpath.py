"""How the JSONPath of NemesisDB (jsoncons) differs from the library's, one difference to a row; and its bounds."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest

from kvasir.dialects.nemesis.jsonpath import compiler, functions
from kvasir.dialects.nemesis.jsonpath.compiler import BadPath, Budget, TooMuch, find, replace

VALUE: dict[str, Any] = {
    "age": 25,
    "name": "dave smith",
    "empty": "",
    "tags": ["a", "b", "c"],
    "nums": [3, 1, 2],
    "access": [{"level": 1, "n": 5}, {"level": 3}, {"level": 5, "n": None}],
    "address": {"city": "London", "year": 1983},
    "a b": {"it's": 1},
    "true": "yes",
    "length": 7,
}


def values(path: str, value: Any = VALUE) -> list[Any]:
    return [node.value for node in find(compiler.compile(path), value, Budget(100_000))]


def paths(path: str, value: Any = VALUE) -> list[str]:
    return [node.path for node in find(compiler.compile(path), value, Budget(100_000))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # steps
        ("$.age", [25]),
        ("$['age']", [25]),
        ('$["age"]', [25]),
        ("$.'a b'.\"it's\"", [1]),
        ("$ . age", [25]),
        ("$ [ 'age' ]", [25]),
        ("@.age", [25]),
        ("$.true", ["yes"]),
        ("$.tags[0]", ["a"]),
        ("$.tags[1,::9]", ["b", "a"]),
        ("$.tags[1 , :1]", ["b", "a"]),
        ("$.tags[-1,0,::2]", ["c", "a"]),
        ("$.tags[-1]", ["c"]),
        ("$.tags.1", ["b"]),
        ("$.tags[0:2]", ["a", "b"]),
        ("$.tags[::-1]", ["c", "b", "a"]),
        ("$.tags[-2:]", ["b", "c"]),
        ("$.tags[0,2]", ["a", "c"]),
        ("$['age','name']", [25, "dave smith"]),
        ("$.tags[*]", ["a", "b", "c"]),
        ("$.address.*", ["London", 1983]),
        ("$..year", [1983]),
        ("$..level", [1, 3, 5]),
        ("$..[0]", ["a", 3, {"level": 1, "n": 5}]),
        # the parent, as a last step
        ("$.address.city^", [{"city": "London", "year": 1983}]),
        ("$.access[?(@.level == 5)]^", [VALUE["access"]]),
        ("$^", []),
        # lengths
        ("$.tags.length", [3]),
        ("$.name.length", [10]),
        ("$.length", [7]),
        ("$.age.length", []),
        # filters: on items and on members
        ("$.access[?(@.level > 2)].level", [3, 5]),
        ("$.access[?@.level > 2].level", [3, 5]),
        ("$.address[?(@ == 'London')]", ["London"]),
        ("$.access[?(@.level > 1 && @.level < 5)].level", [3]),
        ("$.access[?(@.level < 2 || @.level > 4)].level", [1, 5]),
        ("$.access[?(!(@.level == 3))].level", [1, 5]),
        ("$.access[?(@.level != 3)].level", [1, 5]),
        ("$.access[?(@.level >= 3)].level", [3, 5]),
        ("$.access[?(@.level <= 3)].level", [1, 3]),
        # what is missing is null; null is false
        ("$.access[?(@.n == null)].level", [3, 5]),
        ("$.access[?(@.n)].level", [1]),
        ("$[?(@ == '')]", [""]),
        ("$.empty[?(@)]", []),
        ("$.nums[?(@)]", [3, 1, 2]),
        # order between types is always false
        ("$[?(@ > 'z')]", []),
        ("$.nums[?(@ < 'a')]", []),
        # arithmetic and its precedence
        ("$.nums[?(@ + 1 == 3)]", [2]),
        ("$.nums[?(@ * 2 + 1 == 7)]", [3]),
        ("$.nums[?(1 + @ * 2 == 7)]", [3]),
        ("$.nums[?((1 + @) * 2 == 6)]", [2]),
        ("$.nums[?(@ - 1 - 1 == 1)]", [3]),
        ("$.nums[?(@ -1 == 1)]", [2]),
        ("$.nums[?(@ / 2 == 1)]", [3, 2]),
        ("$.nums[?(@ / 2.0 == 1)]", [2]),
        ("$.nums[?(@ % 2 == 0)]", [2]),
        ("$.nums[?(-@ == -3)]", [3]),
        ("$.nums[?(@ / 0 == null)]", [3, 1, 2]),
        ("$.tags[?(@ + 1 == null)]", ["a", "b", "c"]),
        ("$.nums[?(@ / 2 + 6 / 3 == 3)]", [3, 2]),
        # the root within a filter
        ("$.access[?(@.level == $.nums[0])].level", [3]),
        # regular expressions
        ("$[?(@ =~ /da.*/)]", ["dave smith"]),
        ("$[?(@ =~ /DAVE/)]", []),
        ("$[?(@ =~ /DAVE/i)]", ["dave smith"]),
        ("$.address[?(@ =~ /^Lon/)]", ["London"]),
        (r"$[?(@ =~ /a\/b|h$/)]", ["dave smith"]),
        # functions
        ("$.nums[?(abs(0 - @) == 3)]", [3]),
        ("$.access[?(avg($.nums) == 2)].level", [1, 3, 5]),
        ("$.nums[?(ceil(@ / 2.0) == 2)]", [3]),
        ("$.nums[?(floor(@ / 2.0) == 0)]", [1]),
        ("$.access[?(contains($.tags, 'b'))].level", [1, 3, 5]),
        ("$[?(contains(@, 'smith'))]", ["dave smith"]),
        ("$[?(ends_with(@, 'smith'))]", ["dave smith"]),
        ("$[?(starts_with(@, 'dave'))]", ["dave smith"]),
        ("$[?(keys(@) == 3)]", []),
        ("$[?(length(@) == 10)]", ["dave smith"]),
        ("$[?(max(@) == 3)]", [[3, 1, 2]]),
        ("$[?(min(@) == 'a')]", [["a", "b", "c"]]),
        ("$[?(prod(@) == 6)]", [[3, 1, 2]]),
        ("$[?(sum(@) == 6)]", [[3, 1, 2]]),
        ("$.access[?(to_number('3') == @.level)].level", [3]),
        ("$[?(tokenize(@, ' ')[1] == 'smith')]", ["dave smith"]),
        ("$[?(tokenize(@, $.tags[0])[1] == 've smith')]", ["dave smith"]),
        ("$[?(tokenize(@, '(')[0] == 'dave smith')]", []),
        ("$[?(tokenize(@, @.none)[0] == 'dave smith')]", []),
        # numbers beyond a double
        ("ceil(1e999)", [None]),
        ("floor(-1e999)", [None]),
        ("ceil(1e999 - 1e999)", [None]),
        # a call at the top
        ("sum($.nums[*])", [6.0]),
        ("length($.tags)", [3]),
        ("keys($.address)", [["city", "year"]]),
        # no duplicates
        ("$['age','age']", [25]),
        ("$.nums[0,0,-3]", [3]),
        ("$..[?(@.year)]", [{"city": "London", "year": 1983}]),
    ],
)
def test_selects(path: str, expected: list[Any]) -> None:
    assert values(path) == expected


@pytest.mark.parametrize("function", ["sum", "prod", "avg"])
def test_what_is_beyond_a_double_is_null(function: str) -> None:
    huge = [1e308, 1e308]
    assert values(f"{function}($)", huge) == [None]
    assert values(f"$[?({function}($) == null)]", huge) == huge


@pytest.mark.parametrize(
    "path",
    [
        *("age", "$.", "$[", "$[?(", "$abc", "$.a-b", "", "$..", "$[]", "$[abc]", "$.a b", "$[?(@.a ==)]", "$[::0]"),
        *("nope(@)", "sum()", "sum(1,2)", "$[?(@ =~ /(/)]", "$[?(@ =~ 'x')", "$[?(nope(@))]", "$.a)", "$[1", "$ $"),
        "$[?(" + "(" * 2_000 + "1" + ")" * 2_000 + ")]",
        "$" + ".a" * 5_000,
    ],
)
def test_refuses(path: str) -> None:
    with pytest.raises(BadPath):
        compiler.compile(path)


def any_of(*patterns: str) -> str:
    return "$[?(" + " || ".join(f"@ =~ /{pattern}/" for pattern in patterns) + ")]"


@pytest.mark.parametrize(
    "path",
    [
        any_of(*(rf"\pL{{30}}{number}" for number in range(300))),
        any_of(*(rf"\pL{{5}}{number}" for number in range(300))),
        any_of(r"\pL{30}"),
        "$[?(" + "||".join(rf"tokenize(@, '\\pL{{5}}{number}')[0] == 'a'" for number in range(150)) + ")]",
    ],
)
def test_regular_expressions_that_are_long_to_compile_are_refused(path: str) -> None:
    with pytest.raises(BadPath) as refusal:
        compiler.compile(path)
    assert "20,000 instructions" in refusal.value.message


def test_the_size_of_all_regular_expressions_of_a_path_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    size = functions.pattern(r"\d{4}-\d{2}", False).programsize
    monkeypatch.setattr(compiler, "PATH_INSTRUCTIONS", 3 * size)
    alike = [r"\d{4}-\d{2}"] * 4
    assert compiler.compile(any_of(*alike[:3]))
    with pytest.raises(BadPath, match="too large"):
        compiler.compile(any_of(*alike))
    with pytest.raises(BadPath, match="too large"):
        compiler.compile(rf"$[?(@ =~ /{alike[0]}/i || {any_of(*alike[:2])[4:-2]} || tokenize(@, '\\d{{4}}-\\d{{2}}'))]")


def test_a_path_that_takes_much_memory_is_not_kept() -> None:
    cheap, long, large = "$.kept", "$" + "." * 2 + "a" * 300, any_of(r"\pL+")
    assert compiler.compile(cheap) is compiler.compile(cheap)
    assert compiler.compile(any_of("da.*")) is compiler.compile(any_of("da.*"))
    assert compiler.compile(long) is not compiler.compile(long)
    assert compiler.compile(large) is not compiler.compile(large)
    first = compiler.compile(cheap)
    for number in range(1_000):
        compiler.compile(f"$.forgotten{number}")
    assert compiler.compile(cheap) is not first


def test_a_regular_expression_found_in_a_value_is_paid_for() -> None:
    """Nothing is known of it before: it is compiled for every value."""
    path = compiler.compile("$[?(tokenize(@[0], @[1])[1] == 'b')]")
    assert [node.value for node in find(path, [["a,b", ","]] * 20, Budget(2_000))] == [["a,b", ","]] * 20
    for costly in (r"\pL{9}", r"\pL{900}", r"\pL" * 300):
        with pytest.raises(TooMuch):
            find(path, [["a", costly]] * 20, Budget(20_000))


def steps(path: str, value: Any) -> int:
    budget = Budget(10**12)
    find(compiler.compile(path), value, budget)
    return 10**12 - budget.left


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regular expressions take no time."""
    monkeypatch.setattr(functions, "thread_time_ns", lambda: 0)


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize(
    "pattern",
    [
        "da.*",
        "^Lon",
        r"[\w.]+@[\w.]+\.[a-z]{2,}",
        r"\d{4}-\d{2}-\d{2}",
        "[а-яё]+",
        r"^\+?[0-9]{7,15}$",
        "x.{4}",
        r"\pL+",
    ],
)
def test_regular_expressions_cost_what_the_text_costs(pattern: str) -> None:
    none = steps(any_of(pattern), [""])
    for length in (63, 64, 6_400):
        assert steps(any_of(pattern), ["?" * length]) == none + length // 64


def test_a_regular_expression_that_takes_longer_costs_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=2_000_000)
    for path, times in ((any_of("da.*"), 1), ("$[?(tokenize(@, ','))]", 3)):
        monkeypatch.setattr(functions, "thread_time_ns", lambda: 0)
        of_the_texts = steps(path, ["a,b,c"] * 4)
        monkeypatch.setattr(functions, "thread_time_ns", lambda: next(ticks))
        assert steps(path, ["a,b,c"] * 4) >= of_the_texts + 4 * times * 999


def test_a_search_in_texts_that_are_hard_for_it_ends_soon() -> None:
    """RE2 gives up its quick way where it meets ever new states: a short expression then takes 100 ns a character."""
    hard, number = any_of("a[ab]{12}c"), random.Random(1)
    texts = ["".join(number.choices("ab", k=10_000)) for _ in range(100)]
    easy = ["b" * 10_000] * 100
    assert find(compiler.compile(hard), easy, Budget(20_000)) == []
    with pytest.raises(TooMuch):
        find(compiler.compile(hard), texts, Budget(20_000))


def test_a_large_regular_expression_is_looked_for_if_the_worst_can_be_paid() -> None:
    """So that it leaves the event loop, and a thread is free again when the budget says so."""
    large, looked_for = any_of("(?:x.{0,40}){20}y"), ["x" * 1_000]
    find(compiler.compile(large), looked_for, Budget(1_000_000))
    with pytest.raises(TooMuch):
        find(compiler.compile(large), looked_for, Budget(30_000))
    with pytest.raises(TooMuch):
        find(compiler.compile(large), ["x" * 1_000_000], Budget(1_000_000))
    with pytest.raises(TooMuch):
        find(compiler.compile(r"$[?(tokenize(@, '(?:x.{0,40}){20}y'))]"), ["x" * 250_000], Budget(1_000_000))


def test_tokens_that_are_looked_for_to_the_end_each_time_are_paid_for() -> None:
    assert steps("$[?(tokenize(@, ','))]", ["a,b" * 300]) < 2 * 900
    with pytest.raises(TooMuch):
        find(compiler.compile("$[?(tokenize(@, 'a(.*z)?'))]"), ["a" * 100_000], Budget(110_000))


def test_normalized_paths() -> None:
    assert paths("$.tags[-1]") == ["$['tags'][2]"]
    assert paths("$..year") == ["$['address']['year']"]
    assert paths("$['a b']['it\\'s']") == ["$['a b']['it\\'s']"]
    assert paths("$", 5) == ["$"]


def test_the_length_of_a_normalized_path_is_known_before_it_is_made() -> None:
    value = {"it's": [{"a\\b": {"": 1}}] * 11, "ä": 0}
    nodes = find(compiler.compile("$..*"), value, Budget(1_000))
    assert len(nodes) == 35
    assert [node.path_characters for node in nodes] == [len(node.path) for node in nodes]
    assert find(compiler.compile("$"), value, Budget(1_000))[0].path_characters == 1


def test_a_string_at_the_root_is_not_parsed() -> None:
    assert values("$", '{"a":1}') == ['{"a":1}']
    assert values("$.a", '{"a":1}') == []


def test_replaces_every_node_and_creates_none() -> None:
    value = {"a": [{"p": 1}, {"p": 2}, {"q": 3}]}
    assert replace(compiler.compile("$.a[?(@.p > 1)].p"), value, False, Budget(1_000)) == (
        {"a": [{"p": 1}, {"p": False}, {"q": 3}]},
        1,
    )
    assert replace(compiler.compile("$.a[*].nope"), {"a": [1]}, 0, Budget(1_000)) == ({"a": [1]}, 0)
    assert replace(compiler.compile("$"), {"a": 1}, 8, Budget(1_000)) == (8, 1)
    assert replace(compiler.compile("$..x"), {"x": {"x": 1}}, 0, Budget(1_000)) == ({"x": 0}, 2)
    assert replace(compiler.compile("$.a.length"), {"a": [1]}, 0, Budget(1_000)) == ({"a": [1]}, 0)


NESTED: Any = []
for _ in range(500):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$..[?(@..*)]", {"a": [[1] * 200 for _ in range(300)]}),
        ("$..[?($ == $)]", [list(range(300)) for _ in range(300)]),
        ("$..*..*..*", NESTED),
        ("$[?(contains($, 'x'))]", ["y" * 64] * 2_000),
        ("$" + "[0,0]" * 40, NESTED),
        ("$[?(@ =~ /(a*)*b/)]", ["a" * 100_000] * 200),
    ],
)
def test_a_hostile_path_ends_when_its_budget_does(path: str, value: Any) -> None:
    began = time.monotonic()
    with pytest.raises(TooMuch):
        find(compiler.compile(path), value, Budget(100_000))
    assert time.monotonic() - began < 10


def test_a_long_name_is_not_copied_for_every_node_below_it() -> None:
    value = {"k" * 1_000_000: {str(number): number for number in range(20_000)}}
    began = time.monotonic()
    assert len(find(compiler.compile("$..[?(@ < 5)]"), value, Budget(1_000_000))) == 5
    assert time.monotonic() - began < 10


def test_deeply_nested_values() -> None:
    assert len(find(compiler.compile("$..*"), NESTED, Budget(1_000_000))) == 500
