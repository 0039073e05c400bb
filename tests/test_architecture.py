"""The shape of the house: who may import whom, and how long a module or a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvasir

SOURCE = Path(kvasir.__file__).parent
LINES_A_MODULE = 400
LINES_A_FUNCTION = 50

#: Words without behaviour, which everyone may use.
NOUNS = {"kvasir", "model", "errors", "limits", "keys", "jsontext"}
ENGINE = NOUNS | {"engine", "engines.sequence"}
DIALECT = NOUNS | {
    "engine",
    "store",
    "rights",
    "periods",
    "deadline",
    "http",
    "auth",
    "auth_tokens",
    "applications",
    "sessions",
    "snapshots",
}

#: What each module, or folder of interchangeable ones, may import of Kvasir. `server` alone names concrete engines,
#: dialects and listeners; `cli` alone names `server`.
ALLOWED: dict[str, set[str]] = {
    "kvasir": set(),
    "model": set(),
    "errors": set(),
    "limits": {"errors"},
    "keys": {"errors", "model"},
    "jsontext": {"errors"},
    "values": set(),
    "config": {"limits", "values"},
    "settings": {"config", "errors", "limits", "values"},
    "engine": {"errors", "model"},
    "engines": set(),
    "engines.*": ENGINE,
    "engines.sequence": {"errors", "model"},
    "rights": NOUNS,
    "deadline": NOUNS,
    "periods": NOUNS,
    "store": NOUNS | {"engine", "rights", "periods"},
    "snapshots": NOUNS | {"engine", "store"},
    "http": NOUNS,
    "admin": NOUNS | {"engine", "config"},
    "moving": NOUNS | {"engine", "admin"},
    "identity": NOUNS | {"admin", "config"},
    "auth": NOUNS | {"engine", "store", "admin", "identity"},
    "service_accounts": NOUNS | {"engine"},
    "applications": NOUNS | {"store"},
    "sessions": NOUNS,
    "auth_tokens": NOUNS | {"engine", "store", "service_accounts"},
    "devcert": NOUNS,
    "dialects": set(),
    "dialects.*": DIALECT,
    "listeners": set(),
    "listeners.*": NOUNS | {"http", "metrics", "auth", "store"},
    "metrics": NOUNS,
    "logs": set(),
    "health": NOUNS | {"engine", "http", "metrics"},
    "reference": {"http"},
    "supervisor": set(),
    "welcome": {"admin", "config", "values"},
}
#: The composition roots may name anything but each other's users.
ROOTS = {"server", "cli"}

FOLDERS = ("engines", "dialects", "listeners", "cli")


def name_of(file: Path) -> str:
    return ".".join(["kvasir", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {name_of(file): file for file in sorted(SOURCE.rglob("*.py"))}


def unit_of(module: str) -> str:
    """`kvasir.dialects.versori.app` -> `dialects.versori`; `kvasir.store` -> `store`."""
    parts = module.split(".")[1:]
    if not parts:
        return "kvasir"
    return ".".join(parts[:2]) if parts[0] in FOLDERS and parts[0] != "cli" else parts[0]


def allowed_for(unit: str) -> set[str]:
    folder = unit.partition(".")[0]
    return ALLOWED[unit] if unit in ALLOWED else ALLOWED[f"{folder}.*"]


def imported_by(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else str(node.module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    unit = unit_of(module)
    used = {unit_of(name) for name in imported_by(MODULES[module]) if name.split(".")[0] == "kvasir"} - {unit}
    if unit == "cli":
        wrong = {name for name in used if name.startswith("listeners.")}
    elif unit == "server":
        wrong = used & {"cli"}
    else:
        wrong = used - allowed_for(unit)
    assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}"


def test_the_table_names_only_what_there_is() -> None:
    units = {unit_of(module) for module in MODULES} | {"engines.*", "dialects.*", "listeners.*"}
    assert set(ALLOWED) | ROOTS <= units


#: Input and output, threads and loops: for engines, listeners and the composition root, not for protocol code.
OUTSIDE_WORLD = {"socket", "threading", "subprocess", "ssl", "selectors", "urllib.request", "apsw", "granian", "picows"}
OUTSIDE_WORLD |= {"uvloop", "signal", "multiprocessing"}
#: Protocol code asks `store.clock`. A stopwatch (`perf_counter`) and the formatting of times are no clocks.
CLOCKS = {"time.time", "time.time_ns", "time.sleep", "time.monotonic", "datetime.now", "datetime.utcnow"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("kvasir.dialects.")])
def test_protocol_code_owns_no_socket_clock_or_thread(module: str) -> None:
    names = set(imported_by(MODULES[module]))
    assert not (names | {name.split(".")[0] for name in names}) & OUTSIDE_WORLD
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & CLOCKS


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_short(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_A_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            assert length <= LINES_A_FUNCTION, f"{module}.{node.name} has {length} lines"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_owns(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8"))), f"{module} has no docstring"


@pytest.mark.parametrize("module", [name for name in MODULES if unit_of(name) not in {"auth", "auth_tokens"}])
def test_secrets_are_compared_in_one_place(module: str) -> None:
    assert "compare_digest" not in MODULES[module].read_text(encoding="utf-8")
