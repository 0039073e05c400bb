"""What our JavaScript must not have in it, whatever a browser would say."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

import kvasir

CONSOLE = Path(kvasir.__file__).parent / "console"
MODULES = sorted((CONSOLE / "app").glob("*.js"))

#: Ways by which a text becomes markup or code, is kept, or leaves the page in an address.
FORBIDDEN = {
    "innerHTML": r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|DOMParser|srcdoc",
    "eval": r"\beval\(|new Function\(|setTimeout\(\s*[\"'`]",
    "cookies": r"document\.cookie|localStorage|indexedDB",
    "beacons": r"sendBeacon|new WebSocket|new EventSource|window\.open|location\.(href|search)",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_module_uses(what: str) -> None:
    assert len(MODULES) > 20
    found = [path.name for path in MODULES if re.search(FORBIDDEN[what], path.read_text(encoding="utf-8"))]
    assert found == []


def test_modules_are_short_and_begin_with_what_they_own() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("// "), path.name
        assert len(text.splitlines()) <= 400, path.name


def test_modules_import_files_of_the_console_alone() -> None:
    for path in MODULES:
        for name in re.findall(r'(?:from|import\()\s*"([^"]+)"', path.read_text(encoding="utf-8")):
            if not re.search(rf'import\("{re.escape(name)}"\)\.\w', path.read_text(encoding="utf-8")):
                assert (path.parent / name).is_file(), f"{path.name}: {name}"


def test_the_page_weighs_at_most_350_kilobytes_compressed() -> None:
    loaded = [path for path in CONSOLE.rglob("*") if path.suffix in (".html", ".css", ".js")]
    assert sum(len(gzip.compress(path.read_bytes(), mtime=0)) for path in loaded) <= 350_000
