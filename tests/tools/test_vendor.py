"""Other people's JavaScript in the console is what exact versions of npm give, with their licences."""

from __future__ import annotations

import hashlib

import pytest

from tools.vendor import PACKAGES, SUMS, VENDOR, bundle, differences


def test_the_sums_are_those_of_the_files() -> None:
    lines = (VENDOR / SUMS).read_text().splitlines()
    told = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {str(path.relative_to(VENDOR)): path for path in VENDOR.rglob("*") if path.is_file() and path.name != SUMS}
    assert told == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


@pytest.mark.skipif(not PACKAGES.is_dir(), reason="packages of npm are missing: make .venv/console/ready")
def test_the_files_are_what_the_packages_give() -> None:
    assert differences(bundle(), VENDOR) == []


def test_a_file_that_differs_is_found() -> None:
    files = {str(path.relative_to(VENDOR)): path.read_bytes() for path in VENDOR.rglob("*") if path.is_file()}
    assert differences(files, VENDOR) == []
    assert differences(files | {"uplot.js": b""}, VENDOR) == ["uplot.js"]
    assert differences(files | {"more.js": b""}, VENDOR) == ["more.js"]
    files.pop("preact.js")
    assert differences(files, VENDOR) == ["preact.js"]
