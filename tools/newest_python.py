"""Runs tests on the newest Python of this machine as well: `-m tools.newest_python tests/test_keys.py …`.

It looks on PATH and among the versions of pyenv, and keeps an environment of its own with the same dependencies in
.venv/newest. Where there is no Python newer than the one that runs it, it says so in one line.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / ".venv" / "newest"

#: Prints the version, of a released Python that can make environments.
_ASK = (
    "import sys, ensurepip, venv; v = sys.version_info; v.releaselevel == 'final' and print('.'.join(map(str, v[:3])))"
)

Version = tuple[int, ...]


def candidates(variables: Mapping[str, str]) -> Iterator[Path]:
    """Programs that may be a Python 3, as `python3.13` of a folder on PATH; some may not run."""
    for folder in map(Path, variables.get("PATH", os.defpath).split(os.pathsep)):
        if folder.is_dir():
            yield from (file for file in folder.iterdir() if re.fullmatch(r"python3(\.\d+)?", file.name))
    pyenv = Path(variables.get("PYENV_ROOT") or Path(variables.get("HOME", "/")) / ".pyenv")
    yield from pyenv.glob("versions/3.*/bin/python3")


def newer(programs: Iterable[Path], than: Version) -> list[tuple[Version, Path]]:
    """Those of a later minor version, the newest first."""
    found = [(version, program) for program in programs if (version := _version(program)) and version[:2] > than[:2]]
    return sorted(found, reverse=True)


def _version(program: Path) -> Version | None:
    try:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.strip())
    return tuple(map(int, match[0].split("."))) if match and done.returncode == 0 else None


def _environment(version: Version, program: Path) -> bool:
    """Make .venv/newest for this Python if it is not there. False: not everything can be installed for it."""
    stamp = ENVIRONMENT / "ready"
    wanted = f"{program} {version} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return True
    subprocess.run([program, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    pip: list[str | Path] = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Built from source for a Python that a dependency does not know yet would take its compilers, too.
    done = subprocess.run([*pip, "--only-binary", ":all:", "--require-hashes", "-r", LOCK], check=False)
    if done.returncode == 0:
        stamp.write_text(wanted, encoding="utf-8")
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    for version, program in newer(candidates(os.environ), sys.version_info[:3]):
        name = ".".join(map(str, version))
        if _environment(version, program):
            print(f"on Python {name}:", flush=True)
            command: list[str | Path] = [ENVIRONMENT / "bin" / "python", "-m", "pytest", *arguments]
            return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"}, check=False).returncode
        print(f"Python {name} is passed over: not every dependency can be installed for it")
    print(f"no Python newer than {sys.version_info[0]}.{sys.version_info[1]} to try these tests on")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
