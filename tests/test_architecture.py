"""The shape of the house: who may import whom, how long modules and functions may be, and what documents say of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import kvasir
from tools.fixed_limits import FIXED, INNER, shown

SOURCE = Path(kvasir.__file__).parent
LINES_A_MODULE = 400
LINES_A_FUNCTION = 50
#: Of the HTTP listener, which must stay small enough to be read as a whole: of a module, and of all
LINES_OF_HTTP, LINES_OF_ALL_HTTP = 300, 1_720

#: The nouns: words without behaviour, which everyone may use. They and the contract are all that stands at the top.
NOUNS = {"model", "errors", "limits", "keys", "jsontext", "metrics", "printable", "timing"}
TOP = {"kvasir", "engine"} | NOUNS

#: What each folder, or module at the top, may import of Kvasir beside the nouns. The arrows are
#: cli -> server -> listeners -> dialects -> access -> control -> store -> engine <- engines; transfer -> control.
ALLOWED: dict[str, set[str]] = {
    "engine": set(),
    "engines": {"engine", "beside"},
    "store": {"engine"},
    "beside": set(),
    "config": set(),
    "control": {"engine", "store", "config"},
    "access": {"engine", "store", "control", "config"},
    "transfer": {"engine", "control"},
    "dialects": {"engine", "store", "control", "access", "beside"},
    "listeners": {"dialects"},
    "server": {"engine", "engines", "store", "config", "control", "access", "beside", "dialects", "listeners"},
    "testbed": {
        "engine",
        "engines",
        "store",
        "config",
        "control",
        "access",
        "transfer",
        "dialects",
        "listeners",
        "server",
    },
    "testing": set(),
    "cli": {"engine", "store", "config", "control", "transfer", "server", "testbed"},
}
#: What the nouns may import of each other: downwards only.
NOUNS_ALLOWED: dict[str, set[str]] = {
    "model": set(),
    "errors": set(),
    "limits": {"errors"},
    "keys": {"errors", "model"},
    "jsontext": {"errors"},
    "metrics": {"errors", "limits", "model"},
    "printable": set(),
    "timing": {"model"},
}
#: Folders whose children are interchangeable, and so know nothing of each other.
APART = ("engines", "dialects", "listeners")


def name_of(file: Path) -> str:
    return ".".join(["kvasir", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {name_of(file): file for file in sorted(SOURCE.rglob("*.py"))}

#: The Python client, a package of its own, which the server's wheel contains.
CLIENT = SOURCE.parents[1] / "clients" / "python" / "src" / "kvasir_client"
CLIENT_MODULES = {f"kvasir_client.{file.stem}": file for file in sorted(CLIENT.glob("*.py"))}
ALL_MODULES = MODULES | CLIENT_MODULES


def unit_of(module: str) -> str:
    """`kvasir.dialects.versori.app` -> `dialects`; `kvasir.model` -> `model`; `kvasir` itself -> `kvasir`."""
    return module.split(".")[1] if "." in module else module


def imported_by(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else str(node.module)


def units_used(unit: str) -> set[str]:
    """The folders and modules that this one imports anything of; `kvasir` itself, which has the version, is free."""
    files = [file for module, file in MODULES.items() if unit_of(module) == unit]
    used = {unit_of(name) for file in files for name in imported_by(file) if name.split(".")[0] == "kvasir"}
    return used - {unit, "kvasir"}


def test_at_the_top_stand_nouns_and_the_contract() -> None:
    assert {unit_of(name_of(file)) for file in SOURCE.glob("*.py")} == TOP
    assert {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()} == set(ALLOWED) - TOP


@pytest.mark.parametrize("unit", ALLOWED)
def test_imports_follow_the_arrows(unit: str) -> None:
    used = units_used(unit) - NOUNS
    assert used <= ALLOWED[unit], f"{unit} may not import {', '.join(sorted(used - ALLOWED[unit]))}"
    assert used == ALLOWED[unit], f"nobody in {unit} uses the permission for {', '.join(sorted(ALLOWED[unit] - used))}"


@pytest.mark.parametrize("unit", NOUNS_ALLOWED)
def test_nouns_stand_on_each_other_in_one_direction(unit: str) -> None:
    assert units_used(unit) == NOUNS_ALLOWED[unit]


def child_of(module: str) -> str | None:
    """`kvasir.engines.sqlite.writer` -> `engines.sqlite`, if that is a folder; None for what they all share."""
    parts = module.split(".")[1:3]
    return ".".join(parts) if len(parts) == 2 and (SOURCE / Path(*parts)).is_dir() else None


@pytest.mark.parametrize("module", [name for name in MODULES if unit_of(name) in APART])
def test_interchangeable_folders_know_nothing_of_each_other(module: str) -> None:
    """And what they share knows none of them."""
    children = {child_of(name) for name in imported_by(MODULES[module]) if unit_of(name) == unit_of(module)}
    assert children <= {None, child_of(module)}


#: The NemesisDB API is the largest dialect. Its rooms by floor, from the top: each may import those below it.
NEMESIS_FLOORS = (
    ("app",),
    ("conversation",),
    ("commands",),
    ("frames",),
    ("statuses", "json_pointer", "jsonpath", "turn"),
)


def test_the_rooms_of_nemesis_stand_on_each_other() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(NEMESIS_FLOORS) for room in rooms}
    inside = "kvasir.dialects.nemesis."
    for module in [name for name in MODULES if name.startswith(inside)]:
        room = module.removeprefix(inside).split(".")[0]
        for name in imported_by(MODULES[module]):
            other = name.removeprefix(inside).split(".")[0]
            if name.startswith(inside) and other != room:
                assert floor_of[other] > floor_of[room], f"{module} may not import {name}"


#: Input and output, threads and loops: for engines, listeners and the composition root, not for protocol code.
OUTSIDE_WORLD = {"socket", "threading", "subprocess", "ssl", "selectors", "urllib.request", "apsw", "picows"}
OUTSIDE_WORLD |= {"httptools", "h2", "uvloop", "signal", "multiprocessing"}
#: Protocol code asks `store.clock`. A stopwatch (`perf_counter`) and the formatting of times are no clocks.
CLOCKS = {"time.time", "time.time_ns", "time.sleep", "time.monotonic", "datetime.now", "datetime.utcnow"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("kvasir.dialects.")])
def test_protocol_code_owns_no_socket_clock_or_thread(module: str) -> None:
    names = set(imported_by(MODULES[module]))
    assert not (names | {name.split(".")[0] for name in names}) & OUTSIDE_WORLD
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & CLOCKS


@pytest.mark.parametrize("module", CLIENT_MODULES)
def test_the_client_stands_alone(module: str) -> None:
    """It is a client like any other, and is installed where there is no server."""
    assert "kvasir" not in {name.split(".")[0] for name in imported_by(CLIENT_MODULES[module])}


#: Where the client does I/O: the two drivers and what they share, files, and the interfaces that others have defined.
CLIENT_DRIVERS = {"client", "aio", "transport", "files", "__init__"}
CLIENT_INTERFACES = {"mapping", "key_value", "django"}


@pytest.mark.parametrize("module", CLIENT_MODULES)
def test_the_core_of_the_client_does_no_input_or_output(module: str) -> None:
    name = module.removeprefix("kvasir_client.")
    if name not in CLIENT_DRIVERS | CLIENT_INTERFACES:
        used = set(imported_by(CLIENT_MODULES[module]))
        forbidden = OUTSIDE_WORLD | {"httpx2", "asyncio", "time", "os"}
        forbidden |= {f"kvasir_client.{each}" for each in CLIENT_DRIVERS | CLIENT_INTERFACES}
        assert not (used | {each.split(".")[0] for each in used}) & forbidden


def test_only_the_command_line_and_the_fixtures_are_clients() -> None:
    users = {name for name, file in MODULES.items() if any(n.startswith("kvasir_client") for n in imported_by(file))}
    assert users
    assert {unit_of(name) for name in users} == {"cli", "testing"}


@pytest.mark.parametrize("module", ALL_MODULES)
def test_modules_and_functions_stay_short(module: str) -> None:
    text = ALL_MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_A_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            assert length <= LINES_A_FUNCTION, f"{module}.{node.name} has {length} lines"


def test_the_http_listener_stays_small() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in (SOURCE / "listeners" / "http").glob("*.py")}
    assert max(lines.values()) <= LINES_OF_HTTP, lines
    assert sum(lines.values()) <= LINES_OF_ALL_HTTP, lines


@pytest.mark.parametrize("module", ALL_MODULES)
def test_every_module_says_what_it_owns(module: str) -> None:
    assert ast.get_docstring(ast.parse(ALL_MODULES[module].read_text(encoding="utf-8"))), f"{module} has no docstring"


@pytest.mark.parametrize("module", [name for name in MODULES if unit_of(name) != "access"])
def test_secrets_are_compared_in_one_place(module: str) -> None:
    assert "compare_digest" not in MODULES[module].read_text(encoding="utf-8")


TESTS = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_nothing_is_imported_from_a_test_module(file: Path) -> None:
    """What tests share is in tests/support, or a fixture of a conftest.py."""
    parts = {part for name in imported_by(file) if name.split(".")[0] == "tests" for part in name.split(".")}
    assert not {part for part in parts if part.startswith("test_") or part == "conftest"}


# -- the documents ------------------------------------------------------------------------------------------------

ROOT = SOURCE.parents[1]


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def folders_in(parent: Path) -> set[str]:
    """The folders right in this one, without those of editors and tools, and without what git does not keep."""
    ignored = [line.strip("/") for line in document(".gitignore").splitlines()]

    def is_ours(folder: Path) -> bool:
        if folder.name != ".ci" and (folder.name[0] == "." or any(fnmatch(folder.name, one) for one in ignored)):
            return False
        return any(file.is_file() and file.parent.name != "__pycache__" for file in folder.rglob("*"))

    return {f"{path.name}/" for path in parent.iterdir() if path.is_dir() and is_ours(path)}


def tree_in(text: str) -> set[str]:
    """The folders of the drawn tree, with the paths that follow from where they stand."""
    (tree,) = re.findall(r"^## The tree\n\n```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    above = ""
    for indent, name in re.findall(r"^( *)([\w./-]+/) ", tree, re.MULTILINE):
        above = above if indent else name
        found.add(above + name if indent else name)
    return found


def test_the_readme_draws_the_tree() -> None:
    """Every folder at the top, and every one right in the package."""
    package = "src/kvasir/"
    outer = folders_in(ROOT) - {"src/"} | {package}
    assert tree_in(document("README.md")) == outer | {package + name for name in folders_in(SOURCE)}
    for noun in TOP - {"kvasir"}:
        assert re.search(rf"^{package} .*\b{noun}\b", document("README.md"), re.MULTILINE), noun


def test_architecture_names_every_folder_of_the_package() -> None:
    packages = {f"{file.parent.relative_to(SOURCE)}/" for file in SOURCE.rglob("__init__.py")} - {"./"}
    assert packages - set(re.findall(r"`([\w/]+/)`", document("ARCHITECTURE.md"))) == set()


def test_contributing_names_every_folder_of_the_tests() -> None:
    named = set(re.findall(r"`([\w/.]+/)`", document("CONTRIBUTING.md")))
    assert {f"tests/{name}" for name in folders_in(ROOT / "tests")} - named == set()


def test_the_table_of_imports_in_architecture_is_the_one_that_is_held() -> None:
    rows = re.findall(r"^\| `(\w+)/?` \|[^|]*\| (.*) \|$", document("ARCHITECTURE.md"), re.MULTILINE)
    assert {folder: set(re.findall(r"`(\w+)`", allowed)) for folder, allowed in rows} == ALLOWED


ABOUT_CODE = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/benchmarks.md"]
ABOUT_CODE += [f"docs/decisions/{path.name}" for path in (ROOT / "docs" / "decisions").iterdir()]


@pytest.mark.parametrize("name", ABOUT_CODE)
def test_documents_name_no_path_that_is_not_there(name: str) -> None:
    for path in re.findall(r"`([\w./-]+(?:/|\.py))`", document(name)):
        found = [where for where in (ROOT, SOURCE) if (where / path).exists()]
        assert found or list(SOURCE.rglob(path)), f"{name} names {path}"


# -- bounds that are no settings --------------------------------------------------------------------------

#: How constants are called that bound something.
BOUND = re.compile(
    r"MAX|MOST|LONGEST|LIMIT|KEPT|ROUNDS|ATTEMPTS|READERS|READS|STREAMS|SNAPSHOTS|LOGGED|REQUESTS|LINKS|DEPTH"
    r"|(^|_)(BYTES|SECONDS|MILLISECONDS|MS|CHARACTERS|KEYS|ENTRIES|WRITES|ROWS|STEPS|FRAMES|BODIES)"
)


def bounds() -> Iterator[str]:
    """The places of numbers with such a name. Commands that people run, and fixtures of tests, bound nobody else."""
    for module, file in MODULES.items():
        if unit_of(module) in ("cli", "testing"):
            continue
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign):
                for name, value in named(statement.targets[0], statement.value):
                    if isinstance(name, ast.Name) and name.id.isupper() and BOUND.search(name.id) and is_number(value):
                        yield f"{module.removeprefix('kvasir.')}:{name.id}"


def named(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Each name of an assignment and what it gets."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def is_number(value: ast.expr) -> bool:
    """Whether it is a number, or computed of numbers."""
    if isinstance(value, ast.BinOp):
        return is_number(value.left) and is_number(value.right)
    return isinstance(value, ast.Constant) and isinstance(value.value, int | float)


def test_every_bound_is_a_setting_or_in_the_table_or_bounds_nobody() -> None:
    """docs/limits.md lists all bounds; a new constant cannot be forgotten there."""
    found = set(bounds())
    listed = {place for rows in FIXED.values() for place, *_ in rows}
    inner = {f"{module}:{name}" for module, names in INNER.items() for name in names.split()}
    assert found - listed - inner == set(), "add it to FIXED (and run `make docs`) or INNER in tools/fixed_limits.py"
    assert inner - found == set(), "it is gone: remove it from INNER in tools/fixed_limits.py"
    assert listed & inner == set()
    assert all(float(shown(place).replace(",", "")) > 0 for place in listed)
