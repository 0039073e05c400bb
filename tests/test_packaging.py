"""The wheel: everything the server needs is in it, and it runs when installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kvasir
from tests.support.serving import environment

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by pip."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, timeout=100)
    (file,) = directory.glob("kvasirdb-*.whl")
    return file


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        str(file.relative_to(SOURCE))
        for file in (SOURCE / "kvasir").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert "kvasir/py.typed" in needed
    assert needed - packed == set()
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    assert not [name for name in packed if not name.startswith(("kvasir/", "kvasirdb-"))]


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path), str(wheel)], check=True, timeout=100)
    variables = environment(PYTHONPATH=str(tmp_path))
    shown = subprocess.run(
        [tmp_path / "bin" / "kvasir", "--version"], env=variables, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"kvasir {kvasir.__version__}\n"
    where = "import kvasir.server.run; print(kvasir.__file__)"
    loaded = subprocess.run([sys.executable, "-c", where], env=variables, capture_output=True, text=True, check=True)
    assert Path(loaded.stdout.strip()).is_relative_to(tmp_path)
