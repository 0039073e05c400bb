"""The wheel: everything the server needs is in it, and it runs when installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import kvasir_client

import kvasir
from tests.support.packages import PIP, build_sdist, build_wheel
from tests.support.serving import environment

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
CLIENT = ROOT / "clients" / "python"


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = files_of(SOURCE / "kvasir") | files_of(CLIENT / "src" / "kvasir_client")
    assert {"kvasir/py.typed", "kvasir_client/py.typed"} <= needed
    assert needed - packed == set()
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert not [name for name in packed if not name.startswith(("kvasir/", "kvasir_client/", "kvasirdb-"))]


def test_every_file_of_the_package_is_in_the_source_distribution(tmp_path: Path) -> None:
    """From which others build: nothing of the console is made or fetched when it is installed."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, timeout=100, capture_output=True)
    (file,) = tmp_path.glob("kvasirdb-*.tar.gz")
    with tarfile.open(file) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = {f"src/{name}" for name in files_of(SOURCE / "kvasir")}
    assert {"src/kvasir/console/index.html", "src/kvasir/console/vendor/codemirror.js"} <= needed
    assert needed - packed == set()


def files_of(package: Path) -> set[str]:
    """The files of a package, as a wheel names them."""
    files = [file for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    return {str(file.relative_to(package.parent)) for file in files}


def test_the_wheel_of_the_client_has_the_same_files(wheel: Path, tmp_path: Path) -> None:
    """One source, two distributions."""
    alone = zipfile.ZipFile(build_wheel(CLIENT, tmp_path, "kvasir_client"))
    whole = zipfile.ZipFile(wheel)
    names = {name for name in whole.namelist() if name.startswith("kvasir_client/")}
    assert {name for name in alone.namelist() if ".dist-info/" not in name} == names
    assert all(alone.read(name) == whole.read(name) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in alone.namelist())
    assert kvasir_client.__version__ == kvasir.__version__
    (metadata,) = [name for name in whole.namelist() if name.endswith("/METADATA")]
    required = re.findall(r"^Requires-Dist: ([\w-]+)", whole.read(metadata).decode(), re.MULTILINE)
    assert "httpx2" in required
    assert "kvasir-client" not in required


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build_sdist(tmp_path)
    again = build_wheel(sdist, tmp_path)
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == []
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert tops == {
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "clients",
        "deploy",
        "docs",
        "pyproject.toml",
        "src",
    } | (tops & {".gitignore"})


def test_both_licences_are_the_same() -> None:
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(tmp_path), str(wheel)], check=True, timeout=100)
    variables = environment(PYTHONPATH=str(tmp_path))
    shown = subprocess.run(
        [tmp_path / "bin" / "kvasir", "--version"], env=variables, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"kvasir {kvasir.__version__}\n"
    where = "import kvasir.server.run; print(kvasir.__file__)"
    loaded = subprocess.run([sys.executable, "-c", where], env=variables, capture_output=True, text=True, check=True)
    assert Path(loaded.stdout.strip()).is_relative_to(tmp_path)
