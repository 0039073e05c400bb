"""What users install: the wheel and the source distribution, built once for all tests of a run."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def build_wheel(source: Path, directory: Path, name: str = "kvasirdb") -> Path:
    """The wheel of a project, which may be a source distribution, as pip builds it."""
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source)]
    subprocess.run(build, check=True, timeout=200)
    (file,) = directory.glob(f"{name}-*.whl")
    return file


def shared_wheel(directory: Path) -> Path:
    """The wheel of this project, built by the first process that asks in this directory."""
    with (directory / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = list((directory / "wheel").glob("kvasirdb-*.whl"))
        return found[0] if found else build_wheel(ROOT, directory / "wheel")


def build_sdist(directory: Path) -> Path:
    """The source distribution of this project."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (file,) = directory.glob("kvasirdb-*.tar.gz")
    return file


def environment_with(directory: Path, *packages: str) -> Path:
    """The folder of programs of a new virtual environment with these packages, in the versions that are tested."""
    # Without pip of its own: that of the tests installs into it.
    if not directory.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True, timeout=100)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.rstrip(" \\") for line in lock if line and not line.startswith((" ", "#"))]
    constraints = directory.with_name(f"{directory.name}.pins")
    constraints.write_text("\n".join(pins) + "\n")
    programs = directory / "bin"
    install = [*PIP, "--python", str(programs / "python"), "install", "--constraint", str(constraints), *packages]
    subprocess.run(install, check=True, timeout=280)
    return programs
