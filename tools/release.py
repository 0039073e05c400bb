"""`python -m tools.release`: refuses what is not ready to be released, and otherwise builds it into dist/.

The version is written once in each package, so that archives without git have it, too; the tag must say the same.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import kvasir_client

import kvasir

ROOT = Path(__file__).parent.parent


def faults(version: str, client: str, tags: list[str], changed: str, changelog: str) -> list[str]:
    """What is missing before this version can be released; `tags` of HEAD, `changed` as `git status` tells it."""
    found = []
    if client != version:
        found.append(f"kvasir_client has version {client}, kvasir has {version}: both are released together")
    if f"v{version}" not in tags:
        found.append(f"HEAD has no tag v{version}, which `kvasir --version` would tell: git tag --annotate v{version}")
    if changed:
        found.append(f"there are changes that are not committed:\n{changed}")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no section [{version}] with a date: rename [Unreleased]")
    return found


def build(directory: Path) -> list[Path]:
    """The source distributions of server and client, the wheels made of them, and their checksums."""
    directory.mkdir()
    made: list[Path] = []
    for project in (ROOT, ROOT / "clients" / "python"):
        sdist = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(directory)]
        subprocess.run(sdist, cwd=project, check=True)
        (archive,) = set(directory.glob("*.tar.gz")) - set(made)
        wheel = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
        subprocess.run([*wheel, "--wheel-dir", str(directory), str(archive)], check=True)
        made = sorted(directory.iterdir())
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made]
    (directory / "SHA256SUMS").write_text("".join(sums))
    return made


def main() -> int:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    tags = git("tag", "--points-at", "HEAD").split()
    found = faults(kvasir.__version__, kvasir_client.__version__, tags, git("status", "--porcelain"), changelog)
    if (ROOT / "dist").exists():
        found.append("dist/ is there already: remove it")
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        for file in build(ROOT / "dist"):
            print(file.relative_to(ROOT))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
